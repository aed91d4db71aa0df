"""Temporary folders for images, which are removed even if the process that made them was killed."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

_LOCK = ".in-use"
_YOUNG = 60.0
"""Seconds in which a new folder is given its lock."""


class ScratchFolder:
    """A temporary folder that only its process uses; removed when it is closed.

    A killed process cannot remove its folder, and its images of patients would stay. So every new folder first removes
    those of the same purpose that no living process has locked.

    Args:
        purpose: word for the folder's name.

    Attributes:
        path: the folder; empty at first.
    """

    def __init__(self, purpose: str):
        prefix = f"vividmed-{purpose}-"
        remove_abandoned(prefix)
        self._whole = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = FileLock(self._whole / _LOCK)
        self._lock.acquire()
        self.path = self._whole / "files"
        self.path.mkdir()

    def close(self) -> None:
        """Remove the folder."""
        self._lock.release()
        shutil.rmtree(self._whole, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_abandoned(prefix: str) -> None:
    """Remove the folders in the system's temporary folder that begin with a prefix and that no process uses."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Another user's folder, or one that goes away meanwhile, is left alone.
        with contextlib.suppress(OSError, Timeout):
            lock = folder / _LOCK
            if not lock.exists() and time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
