"""Whether an original data set is complete, before any work is done on it."""

from dataclasses import dataclass, field
from pathlib import Path

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.fingerprint import source_files
from vividmed.data.raw.archives import unpack_hint
from vividmed.data.raw.case import Failed, Skipped, printable
from vividmed.errors import VividMedError


@dataclass(frozen=True)
class PatternCount:
    """Files of one kind.

    Attributes:
        pattern: Glob below the origin.
        expected: Number in the complete data set; None where it varies.
        found: Number that is there.
    """

    pattern: str
    expected: int | None
    found: int

    @property
    def complete(self) -> bool:
        return self.found >= (self.expected or 1)


@dataclass(frozen=True)
class IntegrityReport:
    """What is there and what is missing.

    Attributes:
        counts: Of each pattern of the adapter's layout.
        cases: Number of cases that can be listed.
        missing: Case to the files it needs that are missing or empty, below the origin.
        failed: Case to the reason why it cannot be listed.
        problem: Why the cases cannot be listed; None if they can.
        hint: What to do about archives that lie in the origin.
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
            return "\n".join([*lines, f"cases cannot be listed: {self.problem}"])
        lines.append(f"{self.cases} cases, {len(self.missing)} of them lack files")
        lines += [f"  {case}: {', '.join(names)}" for case, names in sorted(self.missing.items())]
        lines += [f"  {case}: {reason}" for case, reason in sorted(self.failed.items())]
        return "\n".join(lines)


def verify_origin(adapter: Adapter, origin: Path) -> IntegrityReport:
    """Compare an origin with what its adapter expects. No image is read."""
    counts = [
        PatternCount(pattern, expected, count_files(origin, pattern))
        for pattern, expected in adapter.layout.items()
    ]
    cases = 0
    missing: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    try:
        for case in adapter.cases(origin):
            if isinstance(case, Skipped):
                continue
            if isinstance(case, Failed):
                failed[case.id] = case.reason
                continue
            if problem := case.problem():
                failed[printable(case.id) or "(no id)"] = problem
                continue
            cases += 1
            lacking = [path for path in source_files(case) if not path.exists() or not path.stat().st_size]
            if lacking:
                missing[case.id] = [
                    path.relative_to(origin).as_posix() if path.is_relative_to(origin) else path.name
                    for path in lacking
                ]
    except VividMedError as error:
        return IntegrityReport(counts, problem=str(error), hint=unpack_hint(origin))
    return IntegrityReport(counts, cases, missing, failed, hint=unpack_hint(origin))


def count_files(origin: Path, pattern: str) -> int:
    """Number of files and folders that match, without hidden ones; a single table may lie there packed."""
    found = sum(not path.name.startswith(".") for path in origin.glob(pattern))
    if not found and pattern.endswith((".csv", ".json", ".jsonl")):
        found = sum(path.suffix in (".gz", ".zip") for path in origin.glob(f"{pattern}.*"))
    return found
