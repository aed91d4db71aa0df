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
from pathlib import Path

from tqdm import tqdm

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.case_store import process_case, read_record
from vividmed.data.preparation.fingerprint import source_bytes
from vividmed.data.preparation.plan import (
    Listing,
    divide,
    list_cases,
    load_plan,
    save_plan,
)
from vividmed.data.preparation.preparation import Preparation, PreparationResult
from vividmed.data.preparation.shards import ShardStore
from vividmed.data.preparation.targets import check_targets
from vividmed.data.preparation.workers import run_here, run_in_pool
from vividmed.data.raw.case import Split
from vividmed.errors import VividMedError
from vividmed.files import alone_in

SHARD_BYTES = 500_000_000
_PILOT = "pilot"
_PILOT_CASES = 8
_DISK_MARGIN = 1.2


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
    with alone_in(output):
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
