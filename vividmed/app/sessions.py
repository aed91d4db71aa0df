"""Scans that people have opened, kept in memory and in a folder each until they leave or stay away."""

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from vividmed.inference.predictor import Result
from vividmed.processing.medical_image import MedicalImage
from vividmed.serving.errors import ApiError

_SWEEP = 30.0


@dataclass(eq=False)
class Session:
    """One scan of one visitor.

    Attributes:
        key: name that only its visitor knows.
        image: as read.
        folder: its files, removed with the session.
        result: the last answer about it, which can be downloaded.
        used_at: when it was last asked for.
    """

    key: str
    image: MedicalImage
    folder: Path
    result: Result | None = None
    used_at: float = field(default_factory=time.monotonic)


class Sessions:
    """The open scans of a server.

    Args:
        most: number of open scans; the one that was idle longest makes room for a new one.
        idle: seconds after which an unused scan is removed.
    """

    def __init__(self, *, most: int = 16, idle: float = 1800.0):
        self._most = most
        self._idle = idle
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep, name="vividmed-sessions", daemon=True).start()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, image: MedicalImage, folder: Path) -> Session:
        """Keep a scan; the folder belongs to the session from now on."""
        session = Session(secrets.token_urlsafe(24), image, folder)
        with self._lock:
            while len(self._open) >= self._most:
                self._remove(min(self._open.values(), key=lambda other: other.used_at).key)
            self._open[session.key] = session
        return session

    def get(self, key: str) -> Session:
        """The session with a key.

        Raises:
            ApiError: there is none, or not any more.
        """
        with self._lock:
            session = self._open.get(key)
            if session is None:
                raise ApiError(404, "the scan is no longer there; open it again", code="unknown_session")
            session.used_at = time.monotonic()
            return session

    def find(self, name: str) -> MedicalImage | None:
        """The scan with a key; None if there is none."""
        try:
            return self.get(name).image
        except ApiError:
            return None

    def remember(self, name: str, result: Result) -> None:
        """Keep the last answer about a scan."""
        with self._lock:
            if name in self._open:
                self._open[name].result = result

    def close(self, key: str) -> None:
        """Remove a scan and its files, if it is there."""
        with self._lock:
            self._remove(key)

    def close_all(self) -> None:
        """Remove every scan."""
        self._closed.set()
        with self._lock:
            for key in list(self._open):
                self._remove(key)

    def remove_idle(self) -> None:
        """Remove the scans that were not used for too long."""
        with self._lock:
            for session in list(self._open.values()):
                if time.monotonic() - session.used_at > self._idle:
                    self._remove(session.key)

    def _remove(self, key: str) -> None:
        session = self._open.pop(key, None)
        if session is not None:
            shutil.rmtree(session.folder, ignore_errors=True)

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP):
            self.remove_idle()
