"""Files of the package, and the one writer of files: they appear completely or not at all, and survive a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vividmed.errors import VividMedError


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk and rename it; missing folders are created.

    Readers see the old content or the new content, never a part.

    Args:
        path: path of the file.
        content: text (written as UTF-8) or bytes.

    Raises:
        VividMedError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise VividMedError(
            f"{path}: cannot be written ({error.strerror or error}); give a path with room and write permission"
        ) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs away from a folder, which is made if it is missing and removed if nothing is written to it.

    The lock of a killed run is void.

    Raises:
        VividMedError: another run works on it, or it cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise VividMedError(
            f"{folder}: another run works on it; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        raise VividMedError(
            f"{folder}: cannot be written ({error.strerror or error}); give a path with room and write permission"
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # it has files
            folder.rmdir()


def sync_file(path: Path) -> None:
    """Flush a file that another library has written."""
    _sync(path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def packaged_folder(name: str) -> Path:
    """Locate a folder that is at the top of a clone and inside the wheel.

    Args:
        name: ``stages/configs``, ``stages/accelerate`` or ``model_cards``.
    """
    package = Path(__file__).parent
    installed = package / "packaged" / name
    return installed if installed.is_dir() else package.parent / name


def or_packaged(path: Path, folder: str) -> Path:
    """Return a path or, where nothing is there, the packaged file that it names.

    ``vlm.yaml`` and ``stages/configs/vlm.yaml`` both name the latter. Another folder's ``mine/vlm.yaml`` does not.

    Args:
        path: what the user gave.
        folder: as in :func:`packaged_folder`.
    """
    if path.is_absolute() or path.exists():
        return path
    files = packaged_folder(folder)
    named = (
        file for file in files.rglob(path.name) if (Path(folder) / file.relative_to(files)).match(str(path))
    )
    return min(named, key=lambda file: len(file.parts), default=path)
