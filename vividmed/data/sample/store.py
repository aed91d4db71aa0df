"""A folder that is complete or absent: built aside, described by a manifest, moved into place."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from vividmed.files import sync_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Build the folder unless a complete one is there.

    Concurrent callers wait for the one that builds. A folder whose manifest is missing, or whose files differ from
    it, is built again. An interrupted build leaves nothing under the folder's name.

    Args:
        folder: Where the files are to lie.
        build: Writes all files into the empty folder it is given.

    Returns:
        ``folder``.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if is_complete(folder):
            return folder
        aside = folder.parent / f"{folder.name}.incomplete"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            build(aside)
            _write_manifest(aside)
            if folder.exists():
                logger.warning("%s is incomplete or damaged and was built again", folder)
                shutil.rmtree(folder)
            aside.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether the folder holds exactly the bytes that its manifest lists."""
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
