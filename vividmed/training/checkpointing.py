"""Checkpoints that are complete or not there.

A checkpoint is written into a hidden folder, flushed to disk, listed in a manifest with sizes and SHA-256 sums, and
only then renamed to ``checkpoint-STEP``. Whatever kills the run, a folder of that name with a matching manifest is
whole, and the newest one of these is where a run resumes.
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
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_PARTIAL = re.compile(rf"\.{PREFIX_CHECKPOINT_DIR}-\d+\.partial")


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands when it is complete."""
    return run_folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def list_checkpoints(run_folder: Path) -> list[Path]:
    """The run's checkpoints, complete or broken, oldest step first."""
    if not run_folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in run_folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


@contextmanager
def atomic_checkpoint(
    run_folder: Path, step: int, *, is_writer: bool, barrier: Callable[[], None]
) -> Iterator[Path]:
    """Give a folder to write a checkpoint into; make it ``checkpoint-STEP`` when the block ends without an error.

    Every process of a distributed run enters the block and writes its own files.

    Args:
        run_folder: the run's output folder.
        step: optimizer steps done.
        is_writer: whether this process makes and renames the folder.
        barrier: waits for all processes.

    Yields:
        The folder to write into.

    Raises:
        VividMedError: when the files cannot be written; the message says how much space is free, and which
            checkpoint is still there.
    """
    final = checkpoint_folder(run_folder, step)
    partial = run_folder / f".{final.name}.partial"
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
            sync_folder(run_folder)
        barrier()
    except VividMedError:
        raise
    except Exception as error:
        if is_writer:
            shutil.rmtree(partial, ignore_errors=True)
        if not _is_write_failure(error):
            raise
        raise VividMedError(_write_failure(final, error)) from error


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
    """What is wrong with a checkpoint, or None when it is complete and as it was written."""
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
    """The checkpoint to resume from: the highest step that is complete. Broken ones are named in a warning."""
    for folder in reversed(list_checkpoints(run_folder)):
        fault = find_fault(folder)
        if fault is None:
            return folder
        logger.warning(f"{folder} is passed over: {fault}")
    return None


def resolve_checkpoint(run_folder: Path, request: str) -> Path | None:
    """Turn the value of ``--resume_from_checkpoint`` into a folder.

    Args:
        run_folder: the run's output folder.
        request: ``latest``, ``auto`` (latest if there is one, else a fresh start) or the path of a checkpoint.

    Raises:
        VividMedError: when there is no complete checkpoint, or the named one is broken.
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
            f"--resume_from_checkpoint: {run_folder} holds no complete checkpoint; "
            "use 'auto' to start afresh when there is none"
        )
    return newest


def remove_partial_checkpoints(run_folder: Path) -> None:
    """Delete what a killed run left half written."""
    if run_folder.is_dir():
        for path in run_folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                logger.warning(f"{path} was left by a run that was stopped while saving; it is removed")
                shutil.rmtree(path)


def remove_old_checkpoints(run_folder: Path, keep: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints (by step, not by file times) beyond ``keep``; the best one stays."""
    if keep is None or keep <= 0:
        return
    others = [path for path in list_checkpoints(run_folder) if best is None or path != Path(best)]
    room = keep if best is None else max(1, keep - 1)
    for path in others[:-room]:
        # Out of sight before it is taken apart: a kill half-way must not leave a broken checkpoint.
        hidden = path.with_name(f".{path.name}.partial")
        path.rename(hidden)
        shutil.rmtree(hidden)


def _is_write_failure(error: Exception) -> bool:
    """Writers report a full disk as OSError, safetensors as its own class, torch as RuntimeError."""
    if isinstance(error, OSError):
        return True
    message = str(error).lower()
    return any(
        hint in message for hint in ("no space left", "os error", "file write failed", "failed writing file")
    )


def _write_failure(final: Path, error: Exception) -> str:
    kept = newest_complete_checkpoint(final.parent)
    free = shutil.disk_usage(final.parent).free / 2**20 if final.parent.is_dir() else 0.0
    reason = (
        os.strerror(error.errno)
        if isinstance(error, OSError) and error.errno
        else " ".join(str(error).split())
    )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        reason = "no space left on device"
    return (
        f"{final} could not be written: {reason} ({free:.0f} MiB free); "
        f"{f'{kept} is kept' if kept else 'there is no earlier checkpoint'}; "
        "free some space and go on with --resume_from_checkpoint"
    )
