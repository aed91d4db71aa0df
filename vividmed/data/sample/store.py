"""Builds a folder that is complete or absent: made under another name, described by a manifest, moved into place."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from vividmed.errors import VividMedError
from vividmed.files import sync_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Build the folder unless a complete one exists.

    Concurrent callers wait for the one that builds. A folder whose manifest is missing, or whose files differ from it,
    is built again. An interrupted build leaves nothing under the folder's name.

    Args:
        folder: folder to build.
        build: writes all files into the empty folder that it is given.

    Returns:
        ``folder``.

    Raises:
        VividMedError: the folder cannot be written.
    """
    if is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not is_complete(folder):
                _build(folder, build)
    except OSError as error:
        raise VividMedError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); make room, or set HF_HOME to "
            "a folder with write permission"
        ) from error
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    aside = folder.parent / f"{folder.name}.incomplete"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        build(aside)
        _write_manifest(aside)
        if folder.exists():
            logger.warning("%s was incomplete or damaged and has been built again", folder)
            shutil.rmtree(folder)
        aside.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether the folder contains exactly the bytes that its manifest lists."""
    try:
        listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(listed) and all(_sha256(folder / name) == digest for name, digest in listed.items())
    except (OSError, ValueError, AttributeError):
        return False


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    for path in files:
        sync_file(path)
    write_atomically(folder / MANIFEST, json.dumps(digests, indent=1) + "\n")
    for path in {folder, *(path.parent for path in files)}:
        sync_folder(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
