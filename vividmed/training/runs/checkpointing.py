"""Checkpoints that appear complete or not at all.

A checkpoint is written into a hidden folder, flushed to disk, listed in a manifest with sizes and SHA-256 sums, and
only then renamed to ``checkpoint-STEP``. Whatever kills the run, a folder of that name with a matching manifest is
complete, and a run resumes from the newest of these.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.files import sync_file, sync_folder, write_atomically

logger = logging.get_logger(__name__)

MANIFEST = "manifest.json"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_PARTIAL = re.compile(rf"\.({PREFIX_CHECKPOINT_DIR}-\d+|base_model|final)\.partial")


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Path of the checkpoint of a step once it is complete."""
    return run_folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def list_checkpoints(run_folder: Path) -> list[Path]:
    """List the checkpoints of a run, complete or broken, oldest step first."""
    if not run_folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in run_folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


@contextmanager
def atomic_checkpoint(
    run_folder: Path, step: int, *, is_writer: bool, barrier: Callable[[], None]
) -> Iterator[Path]:
    """Give a folder to write a checkpoint into; it becomes ``checkpoint-STEP`` if the block ends without an error.

    Every process of a distributed run enters the block and writes its own files.

    Args:
        run_folder: the run's output folder.
        step: optimizer steps done.
        is_writer: whether this process creates and renames the folder.
        barrier: waits for all processes.

    Yields:
        The folder to write into.

    Raises:
        VividMedError: the files cannot be written; the message says how much space is free and which checkpoint
            remains.
    """
    final = checkpoint_folder(run_folder, step)
    with readable_write_errors(final), atomic_folder(final, is_writer=is_writer, barrier=barrier) as partial:
        yield partial


@contextmanager
def atomic_folder(final: Path, *, is_writer: bool, barrier: Callable[[], None]) -> Iterator[Path]:
    """Give a hidden folder to write into; it takes the place of ``final`` if the block ends without an error."""
    partial = final.with_name(f".{final.name}.partial")
    try:
        if is_writer:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        yield partial
        barrier()
        if is_writer:
            write_manifest(partial)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            sync_folder(final.parent)
        barrier()
    except Exception:
        if is_writer:
            shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def readable_write_errors(path: Path) -> Iterator[None]:
    """Report a full or read-only disk as one line.

    Args:
        path: file or folder that the block writes.

    Raises:
        VividMedError: in place of a failure to write, however the writer reports it.
    """
    try:
        yield
    except VividMedError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not _mentions_write_failure(error):
            raise
        raise VividMedError(_write_failure(path, error)) from error


@contextmanager
def readable_log_errors(run_folder: Path) -> Iterator[None]:
    """Report a disk that fills up, or turns read-only, while a run writes its logs as one line.

    Unlike :func:`readable_write_errors` this lets other errors of the operating system pass: the block may also read.

    Args:
        run_folder: the run's output folder.

    Raises:
        VividMedError: in place of a failure to write there.
    """
    try:
        yield
    except OSError as error:
        inside = (
            error.filename is not None and run_folder.resolve() in Path(str(error.filename)).resolve().parents
        )
        if error.errno not in _DISK_ERRORS and not inside:
            raise
        raise VividMedError(_write_failure(run_folder, error)) from error


def write_manifest(folder: Path) -> None:
    """Flush every file of a folder to disk and write the manifest that lists them."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        sync_file(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    write_atomically(folder / MANIFEST, json.dumps({"files": files}, indent=1))
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)


def find_fault(folder: Path) -> str | None:
    """Describe what is wrong with a checkpoint; None if it is complete and as it was written."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, OSError):
        return f"{MANIFEST} cannot be read"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
    for name, expected in files.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} has changed since it was written"
    return None


def newest_complete_checkpoint(run_folder: Path) -> Path | None:
    """Find the complete checkpoint of the highest step; broken ones are named in a warning."""
    for folder in reversed(list_checkpoints(run_folder)):
        fault = find_fault(folder)
        if fault is None:
            return folder
        logger.warning(f"{folder} is ignored: {fault}")
    return None


def resolve_checkpoint(run_folder: Path, request: str) -> Path | None:
    """Turn the value of ``--resume_from_checkpoint`` into a folder.

    Args:
        run_folder: the run's output folder.
        request: ``latest``, ``auto`` (latest if there is one, else a fresh start) or the path of a checkpoint.

    Raises:
        VividMedError: there is no complete checkpoint, or the named one is broken.
    """
    if request not in ("latest", "auto"):
        folder = Path(request)
        fault = find_fault(folder) if folder.is_dir() else "no such folder"
        if fault is not None:
            raise VividMedError(
                f"--resume_from_checkpoint {request}: {fault}; name another checkpoint or 'latest'"
            )
        return folder
    newest = newest_complete_checkpoint(run_folder)
    if newest is None and request == "latest":
        raise VividMedError(
            f"--resume_from_checkpoint: {run_folder} has no complete checkpoint; "
            "use 'auto' to start from the beginning when there is none"
        )
    return newest


def remove_partial_checkpoints(run_folder: Path) -> None:
    """Delete what a killed run left half-written."""
    if run_folder.is_dir():
        for path in run_folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                logger.warning(f"{path} was left by a run that was killed while saving; it is removed")
                shutil.rmtree(path)


def remove_old_checkpoints(run_folder: Path, keep: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints (by step, not by file times) beyond ``keep``; the best one stays."""
    if keep is None or keep <= 0:
        return
    others = [path for path in list_checkpoints(run_folder) if best is None or path != Path(best)]
    room = keep if best is None else max(1, keep - 1)
    for path in others[:-room]:
        # Hidden before it is deleted: a kill half-way must not leave a broken checkpoint.
        hidden = path.with_name(f".{path.name}.partial")
        path.rename(hidden)
        shutil.rmtree(hidden)


def _mentions_write_failure(error: Exception) -> bool:
    """Tell whether a library reports a failure to write as another class than OSError.

    Safetensors has a class of its own; torch raises a RuntimeError from its zip writer, inline_container.cc.
    """
    hints = ("no space left", "os error", "file write failed", "failed writing file", "inline_container")
    return any(hint in str(error).lower() for hint in hints)


def _write_failure(path: Path, error: Exception) -> str:
    run_folder = path if path.is_dir() and list_checkpoints(path) else path.parent
    kept = newest_complete_checkpoint(run_folder)
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free / 2**20
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno).lower()
    return (
        f"{path} could not be written: {reason} ({free:.0f} MiB free); "
        f"{f'{kept} is kept' if kept else 'there is no earlier checkpoint'}; free some space or make the folder "
        f"writable, {'then continue with --resume_from_checkpoint' if kept else 'then start again'}"
    )
