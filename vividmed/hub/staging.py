"""The files of a folder that are to be published, set aside so that what is scanned is what is sent."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vividmed.errors import VividMedError

_STAGING = ".publishing"
_COPIED_BYTES = 16_000_000
_LOCK_SECONDS = 10


class StagedFiles:
    """Copies of files, or second names of large ones, in a folder of their own.

    Attributes:
        folder: folder that contains the files and nothing else.
        names: their paths relative to it, with forward slashes, sorted.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = sorted(names)
        self._states = {name: _state(folder / name) for name in self.names}

    def replace(self, name: str, content: str) -> None:
        """Publish other content under a name; the file in the original folder stays."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(content, encoding="utf-8")
        self.names = sorted({*self.names, name})
        self._states[name] = _state(path)

    def check_unchanged(self) -> None:
        """Refuse to continue if a file was written to after it was set aside.

        Raises:
            VividMedError: names the file.
        """
        for name, state in self._states.items():
            if _state(self.folder / name) != state:
                raise VividMedError(
                    f"{name}: was changed while it was being published; run the command again"
                )


def list_files(folder: Path, allowed: Callable[[str], bool], *, recursive: bool) -> list[str]:
    """Paths of the files that may be published, relative to the folder; hidden files and folders stay.

    Args:
        folder: folder to publish.
        allowed: whether a path may leave.
        recursive: whether to look into folders.

    Raises:
        VividMedError: the folder does not exist, or something that would be published is not a plain file.
    """
    if not folder.is_dir():
        raise VividMedError(f"{folder}: is not a folder; give the folder to publish")
    names: list[str] = []
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            path = Path(entry.path)
            name = path.relative_to(folder).as_posix()
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if recursive:
                    waiting.append(path)
            elif entry.is_symlink() and (allowed(name) or (recursive and path.is_dir())):
                raise VividMedError(
                    f"{path}: is a link to {path.readlink()}; replace it by what it points to, or remove it"
                )
            elif allowed(name):
                if not entry.is_file(follow_symlinks=False):
                    raise VividMedError(f"{path}: is not a plain file; remove it")
                names.append(name)
    return sorted(names)


@contextmanager
def stage_files(folder: Path, names: Sequence[str]) -> Iterator[StagedFiles]:
    """Set files aside for as long as they are scanned and sent.

    Small files are copied. Large ones get a second name (a hard link): a file that is later put in their place is not
    published, and :meth:`StagedFiles.check_unchanged` notices if they are written to. Where the folder is read-only,
    everything is copied to the folder for temporary files.

    Args:
        folder: folder to publish.
        names: see :func:`list_files`.

    Raises:
        VividMedError: another process publishes the folder, a file is not plain any more, or the disk is full.
    """
    staging = folder / _STAGING
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / f"{_STAGING}.lock", timeout=_LOCK_SECONDS))
            # Left behind by a process that was killed.
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
        except Timeout as error:
            raise VividMedError(f"{folder}: another process is publishing it; wait for it to end") from error
        except OSError:
            staging = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vividmed-")))
        yield _fill(staging, folder, names)


def _fill(staging: Path, folder: Path, names: Sequence[str]) -> StagedFiles:
    for name in names:
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _set_aside(folder / name, target)
        except OSError as error:
            raise VividMedError(f"{folder / name}: cannot be read ({error.strerror or error})") from error
    return StagedFiles(staging, names)


def _set_aside(source: Path, target: Path) -> None:
    # Neither follows a link nor waits for the other end of a pipe.
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise VividMedError(f"{source}: is not a plain file; remove it")
        if found.st_size > _COPIED_BYTES:
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:
                pass
            else:
                if os.lstat(target).st_ino == found.st_ino:
                    return
                target.unlink()
        with target.open("xb") as copy:
            shutil.copyfileobj(file, copy)


def _state(path: Path) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns
