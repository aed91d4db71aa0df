"""What the routes share: the model, its settings, and the way of a job from request to answer."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
from starlette.requests import Request

from vividmed.inference.predictor import Predictor, Result
from vividmed.processing.medical_image import MedicalImage
from vividmed.scratch import ScratchFolder
from vividmed.serving.engine import Engine
from vividmed.serving.errors import ApiError
from vividmed.serving.jobs import Event, Failed, Finished, Job
from vividmed.serving.metrics import ServerMetrics
from vividmed.serving.settings import ServerSettings
from vividmed.serving.uploads import read_scan

SESSION = "session:"
"""Begins the address of a scan that the page has opened."""
_POLL = 0.5
_READERS = 2
"""Images that are decoded at a time; each may take the memory of the largest image."""


class ScanStore(Protocol):
    """Scans that were uploaded earlier, by the names that clients use for them."""

    def find(self, name: str) -> MedicalImage | None:
        """The scan with a name; None if there is none."""

    def remember(self, name: str, result: Result) -> None:
        """Keep the last result of a scan."""


class Service:
    """A model that answers requests.

    Args:
        predictor: the model.
        settings: limits.
    """

    def __init__(self, predictor: Predictor, settings: ServerSettings):
        self.predictor = predictor
        self.settings = settings
        self.metrics = ServerMetrics()
        self.engine = Engine(
            predictor, self.metrics, batch_size=settings.batch_size, batch_wait=settings.batch_wait
        )
        self.created = int(time.time())
        self._scratch = ScratchFolder("serve")
        self.root = self._scratch.path
        self.scans: ScanStore | None = None
        self.at_start: list[Callable[[], None]] = []
        """Called on the event loop when the server starts."""
        self.at_stop: list[Callable[[], None]] = []
        """Called when the server is about to stop, before the queue is closed."""
        self.at_close: list[Callable[[], None]] = []
        """Called when nothing is left in the queue."""
        self._readers = anyio.CapacityLimiter(_READERS)

    def close(self) -> None:
        """Answer what is waiting, then remove every temporary file."""
        for stop in self.at_stop:
            stop()
        self.engine.close()
        for close in self.at_close:
            close()
        self._scratch.close()

    def check_model(self, name: str | None) -> None:
        """Check the model that a request asks for.

        Raises:
            ApiError: it is another one.
        """
        if name is not None and name != self.settings.model_name:
            shown = name[:100]
            raise ApiError(
                404,
                f"the model {shown!r} is not served here; ask for {self.settings.model_name!r}",
                code="model_not_found",
                param="model",
            )

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A temporary folder for one request."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def read_scan(self, files: Sequence[bytes], folder: Path, *, name: str) -> MedicalImage:
        """Decode an image without stopping other requests; see :func:`vividmed.serving.uploads.read_scan`."""
        return await anyio.to_thread.run_sync(
            lambda: read_scan(files, folder, name=name), limiter=self._readers
        )

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call a function without stopping other requests."""
        return await anyio.to_thread.run_sync(function, limiter=self._readers)

    async def finish(self, job: Job, request: Request) -> Any:
        """Put a job into the queue and wait for its result.

        Raises:
            ApiError: the time is over, or the server is shutting down.
        """
        self.engine.submit(job)
        try:
            while True:
                event = await self._next_event(job, request)
                if isinstance(event, Finished):
                    return event.result
                if isinstance(event, Failed):
                    raise event.error
        finally:
            job.cancel()

    async def _next_event(self, job: Job, request: Request) -> Event:
        """The next event of a job, unless the client has gone."""
        waiting = asyncio.ensure_future(job.next_event())
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=_POLL)
                if done:
                    return waiting.result()
                if await request.is_disconnected():
                    raise ApiError(499, "the client has gone", code="cancelled")
        finally:
            waiting.cancel()


def session_key(service: Service, address: str | None) -> str | None:
    """Key in the address of a scan that the page has opened; None for other addresses."""
    if service.scans is None or address is None or not address.startswith(SESSION):
        return None
    return address.removeprefix(SESSION)


def uploaded_scan(service: Service, key: str, name: str) -> MedicalImage:
    """The scan with a key.

    Args:
        service: with scans.
        key: of :func:`session_key`.
        name: field of the request, for errors.

    Raises:
        ApiError: it is not there, or not any more.
    """
    scan = None if service.scans is None else service.scans.find(key)
    if scan is None:
        raise ApiError(404, "the scan is no longer there; open it again", code="unknown_session", param=name)
    return scan
