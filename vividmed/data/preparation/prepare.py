"""Turns an original data set into Parquet shards: in parallel, resumable, the same bytes after any interruption.

The process happens in three steps. :func:`plan_preparation` lists the cases, decides on their splits, and divides them
into shards of about the wanted size; the plan is kept with the output. Each case is then turned into rows by itself and
stored in a file of its own, and as soon as all cases of a shard are stored, the shard is written and those files are
removed. At the end the table of failures and the terms are written. Every file appears complete or not at all, so a run
that was killed at any point resumes with the first case that has no file.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.case_store import CaseRecord, process_case, read_record
from vividmed.data.preparation.failures import write_failures
from vividmed.data.preparation.fingerprint import source_bytes
from vividmed.data.preparation.plan import (
    Listing,
    PlannedCase,
    Shard,
    divide,
    list_cases,
    load_plan,
    save_plan,
)
from vividmed.data.preparation.shards import ShardStore
from vividmed.data.preparation.targets import check_targets
from vividmed.data.preparation.workers import run_here, run_in_pool
from vividmed.data.raw.case import Split
from vividmed.data.terms import write_terms
from vividmed.errors import VividMedError

SHARD_BYTES = 500_000_000
_PILOT = "pilot"
_PILOT_CASES = 8
_DISK_MARGIN = 1.2


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


def plan_preparation(
    adapter: Adapter,
    origin: Path,
    output: Path,
    *,
    processing: Processing | None = None,
    only: Split | None = None,
    limit: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    retry_failed: bool = False,
) -> Preparation:
    """List the cases and divide them into shards of about the wanted size.

    The size of a case's rows is estimated from a few cases, which are processed at once. The plan is kept with the
    output and stays in use as long as the cases stay the same.

    Args:
        adapter: adapter of the data set.
        origin: folder of the original data set.
        output: folder of the prepared data set.
        processing: choices about the images.
        only: prepare only this split.
        limit: prepare only the first cases by id.
        shard_bytes: approximate size of a shard.
        retry_failed: process cases again that failed, even if their files have not changed.

    Raises:
        VividMedError: the origin is not what the adapter expects, a target is not in the taxonomy, or the output
            cannot be written or has too little room.
    """
    processing = processing or Processing()
    _check_origin(origin)
    if processing.window is not None and not any("CT" in name.split() for name in adapter.modalities):
        raise VividMedError(f"--window is for CT; {adapter.name} has {', '.join(adapter.modalities)}")
    origin, output = origin.resolve(), output.resolve()
    try:
        listing = list_cases(adapter, origin, processing, only=only, limit=limit)
    except OSError as error:
        raise VividMedError(
            f"{error.filename or origin}: cannot be read ({error.strerror or error}); correct its permissions or name"
        ) from error
    check_targets(adapter.name, (item.case for item in listing.cases))
    store = ShardStore(output, origin, adapter.row_kind, retry_failed=retry_failed)
    with _writing(output):
        store.notes.mkdir(parents=True, exist_ok=True)
        sampled = 0
        shards = load_plan(store.notes, listing.cases)
        if shards is None:
            sampled, growth = _process_pilot_cases(adapter, origin, processing, listing, store)
            _check_disk(output, growth * sum(source_bytes(item.case) for item in listing.cases))
            shards = divide(listing.cases, shard_bytes / growth)
            store.adopt(_PILOT, shards)
            save_plan(store.notes, shards)
    return Preparation(
        adapter=adapter,
        origin=origin,
        output=output,
        processing=processing,
        listing=listing,
        shards=shards,
        store=store,
        sampled=sampled,
    )


def prepare_dataset(
    adapter: Adapter,
    origin: Path,
    output: Path,
    *,
    processing: Processing | None = None,
    only: Split | None = None,
    limit: int | None = None,
    num_proc: int = 1,
    shard_bytes: int = SHARD_BYTES,
    retry_failed: bool = False,
    progress: bool = False,
) -> PreparationResult:
    """Prepare a data set on this machine.

    Safe to interrupt: run it again to resume, with the same shards in the end. Finished cases whose source files have
    not changed are left alone.

    Args:
        adapter: adapter of the data set.
        origin: folder of the original data set.
        output: folder of the prepared data set, which ``load_dataset`` can load.
        processing: choices about the images.
        only: prepare only this split.
        limit: prepare only the first cases by id.
        num_proc: number of worker processes; each has one case in memory.
        shard_bytes: approximate size of a shard.
        retry_failed: process cases again that failed, even if their files have not changed.
        progress: show a progress bar on standard error.

    Raises:
        VividMedError: as :func:`plan_preparation`; or a worker was killed, or another run works on the same output.
    """
    _check_origin(origin)
    with _exclusive(output):
        plan = plan_preparation(
            adapter,
            origin,
            output,
            processing=processing,
            only=only,
            limit=limit,
            shard_bytes=shard_bytes,
            retry_failed=retry_failed,
        )
        total = sum(len(shard.cases) for shard in plan.shards)
        with tqdm(total=total, unit="case", desc=adapter.name, disable=not progress) as bar, _writing(output):
            worked_on = run_here(plan, bar) if num_proc == 1 else run_in_pool(plan, num_proc, bar)
            return plan.finish(worked_on)


def _check_origin(origin: Path) -> None:
    try:
        is_folder, is_file = origin.is_dir(), origin.is_file()
    except OSError as error:
        raise VividMedError(
            f"{origin}: cannot be read ({error.strerror}); give another folder by --origin"
        ) from error
    if is_file:
        raise VividMedError(f"{origin}: is not a folder; unpack it and give the folder by --origin")
    if not is_folder:
        raise VividMedError(f"{origin}: no such folder; give the folder of the original data set by --origin")


@contextmanager
def _exclusive(output: Path) -> Iterator[None]:
    """Keep other runs away from the same output; the lock of a killed run is void."""
    lock = FileLock(output / ".lock", timeout=0)
    with _writing(output):
        output.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise VividMedError(
                f"{output}: another run works on it; wait for it, or choose another --output"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn a failure to write into an error that names the output.

    Raises:
        VividMedError: the disk is full, or the output is read-only or has a name that is too long.
    """
    try:
        yield
    except OSError as error:
        raise VividMedError(
            f"{error.filename or output}: cannot be written ({error.strerror or error}); make room, or choose another "
            "--output, and run the command again"
        ) from error


def _process_pilot_cases(
    adapter: Adapter, origin: Path, processing: Processing, listing: Listing, store: ShardStore
) -> tuple[int, float]:
    """Process a few cases, spread over the listing, to estimate the size of the output.

    Returns:
        Number of cases processed, and bytes of rows per byte of source files, at least 0.01.
    """
    cases = listing.cases[:: max(1, len(listing.cases) // _PILOT_CASES)][:_PILOT_CASES]
    before = after = count = 0
    folder = store.pending(_PILOT)
    for item in cases:
        record = read_record(folder, item.case.id)
        if record is None or not record.is_current(item, origin):
            record = process_case(adapter, item, origin, processing, folder)
            count += 1
        if record.error is None:
            before += source_bytes(item.case)
            after += record.bytes
    return count, max(after / before, 0.01) if before else 1.0


def _check_disk(output: Path, needed: float) -> None:
    free = shutil.disk_usage(output).free
    if free < _DISK_MARGIN * needed:
        raise VividMedError(
            f"{output}: about {_DISK_MARGIN * needed / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB are free; "
            "make room, or choose another --output"
        )
