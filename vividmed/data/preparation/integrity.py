"""Checks that an original data set is complete before any work is done on it."""

from dataclasses import dataclass, field
from pathlib import Path

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.fingerprint import source_files
from vividmed.data.preparation.targets import describe_unknown_targets, unknown_targets
from vividmed.data.raw.archives import unpack_hint
from vividmed.data.raw.case import Case, Failed, Skipped, printable
from vividmed.errors import VividMedError


@dataclass(frozen=True)
class PatternCount:
    """Number of files that match one pattern.

    Attributes:
        pattern: glob pattern below the origin.
        expected: number in the complete data set; None if it varies.
        found: number that exists.
    """

    pattern: str
    expected: int | None
    found: int

    @property
    def complete(self) -> bool:
        return self.found >= (self.expected or 1)


@dataclass(frozen=True)
class IntegrityReport:
    """Existing and missing parts of a data set.

    Attributes:
        counts: number of files per pattern of the adapter's layout.
        cases: number of cases that can be listed.
        missing: id of each case whose files are missing or empty, and those files, below the origin.
        failed: id of each case that cannot be listed, and the reason.
        problem: why the cases cannot be prepared; None if they can.
        hint: what to do about archives in the origin.
    """

    counts: list[PatternCount]
    cases: int = 0
    missing: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    problem: str | None = None
    hint: str = ""

    @property
    def complete(self) -> bool:
        return (
            all(count.complete for count in self.counts)
            and not self.missing
            and not self.failed
            and self.problem is None
        )

    def table(self) -> str:
        """The report for a terminal."""
        width = max(len("files"), *(len(count.pattern) for count in self.counts))
        lines = [f"{'files':<{width}}  expected    found"]
        for count in self.counts:
            expected = "any" if count.expected is None else str(count.expected)
            mark = "" if count.complete else "  incomplete"
            lines.append(f"{count.pattern:<{width}}  {expected:>8}  {count.found:>7}{mark}")
        if self.hint and not self.complete:
            lines.append(self.hint)
        if self.problem is not None:
            return "\n".join([*lines, f"cases cannot be prepared: {self.problem}"])
        lines.append(f"{self.cases} cases, {len(self.missing)} of them lack files")
        lines += [f"  {case}: {', '.join(names)}" for case, names in sorted(self.missing.items())]
        lines += [f"  {case}: {reason}" for case, reason in sorted(self.failed.items())]
        return "\n".join(lines)


def verify_origin(adapter: Adapter, origin: Path) -> IntegrityReport:
    """Compare an origin with what its adapter expects, without reading an image."""
    counts = [
        PatternCount(pattern, expected, count_files(origin, pattern))
        for pattern, expected in adapter.layout.items()
    ]
    cases: list[Case] = []
    missing: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    try:
        for case in adapter.cases(origin):
            if isinstance(case, Skipped):
                continue
            if isinstance(case, Failed):
                failed[case.id] = case.reason
                continue
            if reason := case.problem():
                failed[printable(case.id) or "(no id)"] = reason
                continue
            cases.append(case)
            lacking = [path for path in source_files(case) if not path.exists() or not path.stat().st_size]
            if lacking:
                missing[case.id] = [
                    path.relative_to(origin).as_posix() if path.is_relative_to(origin) else path.name
                    for path in lacking
                ]
    except (VividMedError, OSError) as error:
        return IntegrityReport(counts, problem=str(error), hint=unpack_hint(origin))
    unknown = unknown_targets(cases)
    problem = describe_unknown_targets(unknown) if unknown else None
    return IntegrityReport(counts, len(cases), missing, failed, problem, hint=unpack_hint(origin))


def count_files(origin: Path, pattern: str) -> int:
    """Number of files and folders that match, without hidden ones; a single table may be packed."""
    found = sum(not path.name.startswith(".") for path in origin.glob(pattern))
    if not found and pattern.endswith((".csv", ".json", ".jsonl")):
        found = sum(path.suffix in (".gz", ".zip") for path in origin.glob(f"{pattern}.*"))
    return found
