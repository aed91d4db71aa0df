"""A planned preparation, and its result."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.case_store import CaseRecord, process_case
from vividmed.data.preparation.failures import write_failures
from vividmed.data.preparation.plan import Listing, PlannedCase, Shard
from vividmed.data.preparation.shards import ShardStore
from vividmed.data.raw.case import Split
from vividmed.data.terms import write_terms
from vividmed.errors import VividMedError


@dataclass(frozen=True, kw_only=True)
class PreparationResult:
    """Result of a preparation.

    Attributes:
        output: folder of the data set.
        facts: statistics of every row, by split; see :func:`~vividmed.data.preparation.statistics.describe_row`.
        failed: id of each case without rows, and the reason.
        left_out: id of each case that the adapter leaves out, and the reason.
        worked_on: number of cases that this run processed; 0 if everything was done before.
        warnings: id of each case that a user should look at, and the reasons.
    """

    output: Path
    facts: dict[Split, list[dict[str, Any]]]
    failed: dict[str, str]
    left_out: dict[str, str]
    worked_on: int
    warnings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows by split."""
        return {split: len(rows) for split, rows in self.facts.items()}


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A planned preparation. Every process that plans one from the same arguments gets the same plan.

    Attributes:
        adapter: adapter of the data set.
        origin: folder of the original data set.
        output: folder of the prepared data set.
        processing: choices about the images.
        listing: cases of the origin.
        shards: the plan.
        store: where shards are kept.
        sampled: number of cases processed to make the plan.
    """

    adapter: Adapter
    origin: Path
    output: Path
    processing: Processing
    listing: Listing
    shards: list[Shard]
    store: ShardStore
    sampled: int = 0

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.adapter.name

    @property
    def logs(self) -> Path:
        """Folder for the logs of executors."""
        return self.store.notes / "logs"

    def work_on(self, shard: Shard) -> int:
        """Finish a shard in this process, one case after the other.

        Returns:
            Number of cases processed.
        """
        cases = self.store.to_do(shard)
        if cases is None:
            return 0
        for item in cases:
            self.process(shard, item)
        self.store.write(shard)
        return len(cases)

    def process(self, shard: Shard, item: PlannedCase) -> CaseRecord:
        """Turn one case into stored rows."""
        return process_case(self.adapter, item, self.origin, self.processing, self.store.pending(shard.name))

    def finish(self, worked_on: int) -> PreparationResult:
        """Write ``failures.csv`` and ``terms.json`` after all shards are written.

        Args:
            worked_on: number of cases processed, without those of the plan.

        Raises:
            VividMedError: a shard is missing.
        """
        records: dict[Split, list[CaseRecord]] = {}
        for shard in self.shards:
            done = self.store.records(shard.name)
            if done is None:
                raise VividMedError(
                    f"{self.output}: shard {shard.name} is not finished; run the command again"
                )
            records.setdefault(shard.split, []).extend(done)
        everything = [record for group in records.values() for record in group]
        failed = dict(self.listing.failed) | {r.id: r.error for r in everything if r.error is not None}
        self.store.tidy(self.shards)
        warnings = {record.id: record.warnings for record in everything if record.warnings}
        write_failures(self.output / "failures.csv", failed, self.listing.left_out, warnings)
        write_terms(self.output, self.adapter)
        facts = {split: [row for r in group for row in r.rows] for split, group in records.items()}
        return PreparationResult(
            output=self.output,
            facts={split: rows for split, rows in facts.items() if rows},
            failed=failed,
            left_out=self.listing.left_out,
            worked_on=self.sampled + worked_on,
            warnings=warnings,
        )
