"""The output folder of a run: used by one run at a time, and never mixed with an earlier one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from vividmed.errors import VividMedError
from vividmed.training.callbacks import LossCurve, MetricsFile, SampleAnswers
from vividmed.training.grounded_answers import SampleOverlays
from vividmed.training.runs.checkpointing import (
    list_checkpoints,
    readable_write_errors,
    remove_partial_checkpoints,
    resolve_checkpoint,
)
from vividmed.training.settings.arguments import VividMedTrainingArguments

BASELINE = "baseline.json"
_LOGS = (MetricsFile.name, SampleAnswers.name, LossCurve.name, BASELINE)


@contextmanager
def run_folder(args: VividMedTrainingArguments) -> Iterator[Path | None]:
    """Lock the output folder for this run, clean up after a killed one, and find the checkpoint to resume from.

    Every process of a distributed run enters. The main process takes the lock, which ends with it however it ends.

    Yields:
        The checkpoint to resume from, or None for a fresh start.

    Raises:
        VividMedError: the folder cannot be written, another run uses it, or it contains an earlier run and the
            arguments ask neither to resume nor to overwrite it.
    """
    folder = args.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VividMedError(
            f"--output_dir {folder}: cannot be created ({error.strerror}); name another folder"
        ) from error
    with _lock(folder) if args.should_save else nullcontext():
        with args.main_process_first(local=False, desc="looking into the output folder"):
            if args.should_save:
                with readable_write_errors(folder):
                    remove_partial_checkpoints(folder)
            request = args.resume_from_checkpoint
            checkpoint = resolve_checkpoint(folder, request) if request else None
            if checkpoint is None and args.should_save:
                with readable_write_errors(folder):
                    _clear(folder, overwrite=args.overwrite_output_dir)
        yield checkpoint


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise VividMedError(
            f"--output_dir {folder}: another run is at work in it; wait for it or name another folder"
        ) from None
    except OSError as error:
        raise VividMedError(
            f"--output_dir {folder}: cannot be written ({error.strerror or error}); make it writable or name another "
            "folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path, *, overwrite: bool) -> None:
    earlier = list_checkpoints(folder)
    if earlier and not overwrite:
        raise VividMedError(
            f"--output_dir {folder}: holds {earlier[-1].name} of an earlier run; continue it with "
            "--resume_from_checkpoint, replace it with --overwrite_output_dir, or name another folder"
        )
    for path in earlier:
        shutil.rmtree(path)
    for name in _LOGS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / SampleOverlays.folder, ignore_errors=True)
