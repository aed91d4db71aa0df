"""An original data set to Parquet shards: in parallel, resumable, the same bytes however often it was interrupted."""

import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
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
from vividmed.data.raw.case import Split
from vividmed.data.terms import write_terms
from vividmed.errors import VividMedError

logger = logging.getLogger(__name__)

SHARD_BYTES = 500_000_000
_PILOT = "pilot"
_PILOT_CASES = 8
_DISK_MARGIN = 1.2


@dataclass(frozen=True, kw_only=True)
class PreparationResult:
    """What a preparation left.

    Attributes:
        output: Folder of the data set.
        facts: What :func:`~vividmed.data.preparation.statistics.describe_row` says of every row, by split.
        failed: Case to the reason why it has no rows.
        left_out: Case to the reason why the adapter leaves it out.
        worked_on: Number of cases that this run dealt with; 0 if everything was done.
        warnings: Case to what a user should look at.
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
    """A planned preparation; every process that makes one from the same arguments has the same plan.

    Attributes:
        adapter: Of the data set.
        origin: Folder of the original.
        output: Folder of the prepared data set.
        processing: Choices about the images.
        listing: Cases of the origin.
        shards: The plan.
        store: Where shards lie.
        sampled: Number of cases that were dealt with to make the plan.
    """

    adapter: Adapter
    origin: Path
    output: Path
    processing: Processing
    listing: Listing
    shards: list[Shard]
    store: ShardStore
    sampled: int = 0

    def work_on(self, shard: Shard) -> int:
        """Finish a shard in this process, one case after the other.

        Returns:
            Number of cases dealt with.
        """
        cases = self.store.to_do(shard)
        if cases is None:
            return 0
        for item in cases:
            self.process(shard, item)
        self.store.write(shard)
        return len(cases)

    def process(self, shard: Shard, item: PlannedCase) -> CaseRecord:
        """Deal with one case."""
        return process_case(self.adapter, item, self.origin, self.processing, self.store.pending(shard.name))

    def finish(self, worked_on: int) -> PreparationResult:
        """Write ``failures.csv`` and ``terms.json``, once every shard is there.

        Raises:
            VividMedError: A shard is missing.
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

    How large the rows of a case become is estimated from a few cases, which are prepared at once. The plan is kept with
    the output: as long as the cases stay, so do the shards.

    Raises:
        VividMedError: The origin is not what the adapter expects, or the disk is too small.
    """
    processing = processing or Processing()
    if origin.is_file():
        raise VividMedError(f"{origin}: is no folder; unpack it and give the folder by --origin")
    if not origin.is_dir():
        raise VividMedError(f"{origin}: no such folder; give the folder of the original data set by --origin")
    if processing.window is not None and not any("CT" in name.split() for name in adapter.modalities):
        raise VividMedError(f"--window is for CT; {adapter.name} has {', '.join(adapter.modalities)}")
    origin, output = origin.resolve(), output.resolve()
    listing = list_cases(adapter, origin, processing, only=only, limit=limit)
    store = ShardStore(output, origin, adapter.row_kind, retry_failed=retry_failed)
    store.notes.mkdir(parents=True, exist_ok=True)
    sampled = 0
    shards = load_plan(store.notes, listing.cases)
    if shards is None:
        sampled, growth = _sample(adapter, origin, processing, listing, store)
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

    Killed at any point and started again it goes on, and ends with the same shards. What is finished and whose source
    files have not changed is not touched.

    Args:
        adapter: Of the data set.
        origin: Folder of the original.
        output: Folder of the prepared data set, loadable by ``load_dataset``.
        processing: Choices about the images.
        only: Prepare one split.
        limit: Prepare the first cases by id.
        num_proc: Worker processes; each holds one case in memory.
        shard_bytes: About the size of a file.
        retry_failed: Try cases that failed again even if their files have not changed.
        progress: Show a progress bar on standard error.

    Raises:
        VividMedError: The origin is not what the adapter expects, the disk is too small, a worker died, or another
            run works on the same output.
    """
    with _alone(output):
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
        with tqdm(total=total, unit="case", desc=adapter.name, disable=not progress) as bar:
            worked_on = _run_here(plan, bar) if num_proc == 1 else _run_in_pool(plan, num_proc, bar)
        return plan.finish(worked_on)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep a second run away from the same output; the lock of a killed run is void."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise VividMedError(
            f"{output}: another run works on it; wait for it or choose another --output"
        ) from error


def _run_here(plan: Preparation, bar: tqdm) -> int:
    count = 0
    for shard, cases in _unfinished(plan, bar):
        for item in cases:
            plan.process(shard, item)
            bar.update()
        plan.store.write(shard)
        count += len(cases)
    return count


def _run_in_pool(plan: Preparation, num_proc: int, bar: tqdm) -> int:
    """Cases in order of the shards, a few more than workers at a time; a shard is written when its cases are done."""
    count = 0
    waiting: dict[Future[None], Shard] = {}
    left: dict[str, int] = {}

    def settle(at_most: int) -> None:
        while len(waiting) > at_most:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                shard = waiting.pop(future)
                future.result()
                bar.update()
                left[shard.name] -= 1
                if not left[shard.name]:
                    plan.store.write(shard)

    # Workers are forked from a process without threads, which imports the libraries once for all of them.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_start_worker) as pool:
        try:
            for shard, cases in _unfinished(plan, bar):
                left[shard.name] = len(cases)
                if not cases:
                    plan.store.write(shard)
                for item in cases:
                    settle(2 * num_proc)
                    folder = plan.store.pending(shard.name)
                    future = pool.submit(_process, plan.adapter, item, plan.origin, plan.processing, folder)
                    waiting[future] = shard
                count += len(cases)
            settle(0)
        except BrokenProcessPool as error:
            raise VividMedError(
                "a worker was killed, likely because memory ran out; run again with a smaller --num-proc to go on"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return count


def _unfinished(plan: Preparation, bar: tqdm) -> Iterator[tuple[Shard, list[PlannedCase]]]:
    for shard in plan.shards:
        cases = plan.store.to_do(shard)
        bar.update(len(shard.cases) - len(cases or ()))
        if cases is not None:
            yield shard, cases


def _process(*arguments: object) -> None:
    process_case(*arguments)  # type: ignore[arg-type]


def _start_worker() -> None:
    # Workers share the cores; threads of their libraries would only compete.
    torch.set_num_threads(1)
    # A worker whose parent was killed would wait for work for ever.
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sample(
    adapter: Adapter, origin: Path, processing: Processing, listing: Listing, store: ShardStore
) -> tuple[int, float]:
    """Prepare cases spread over the listing.

    Returns:
        How many were dealt with, and the bytes of rows a byte of source, at least a hundredth.
    """
    cases = listing.cases[:: max(1, len(listing.cases) // _PILOT_CASES)][:_PILOT_CASES]
    before = after = count = 0
    folder = store.pending(_PILOT)
    for item in cases:
        record = read_record(folder, item.case.id)
        if record is None or not record.holds_for(item, origin):
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
            f"{output}: about {_DISK_MARGIN * needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "make room or choose another --output"
        )
