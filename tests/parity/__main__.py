"""``python -m tests.parity``: a table of every case, its largest difference and the verdict."""

import sys

from tests.parity.harness import TOLERANCE, golden, load_cases


def main() -> int:
    source = golden()
    print(f"published numbers: {source.folder.name}; tolerance {TOLERANCE:g}")
    print(f"{'case':<24}{'checks':>7}{'largest difference':>20}  verdict")
    failed = False
    for name, run in sorted(load_cases().items()):
        checks = list(run(source))
        worst = max(checks, key=lambda check: check.difference)
        passed = all(check.passed for check in checks)
        failed |= not passed
        verdict = "ok" if passed else f"FAILED at {worst.name}"
        print(f"{name:<24}{len(checks):>7}{worst.difference:>20.2e}  {verdict}")
    missing = sorted(set(source.description["cases"]) - set(load_cases()))
    if missing:
        print(f"not compared yet: {', '.join(missing)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
