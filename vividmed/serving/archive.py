"""Studies of an archive, answered by the server's model between the requests of its clients."""

import asyncio
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

from vividmed.errors import VividMedError
from vividmed.inference.predictor import Result
from vividmed.pacs.client import Pacs
from vividmed.pacs.worker import Outcome, Question, watch
from vividmed.processing.reading import ImageSource
from vividmed.serving.errors import ApiError
from vividmed.serving.jobs import CallJob, Failed, Finished
from vividmed.serving.service import Service

logger = logging.getLogger(__name__)


class QueuedPredictor:
    """The server's model for another thread, whose calls wait in the same queue as requests.

    Args:
        service: the model.
        loop: the server's event loop, which runs in its own thread.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop):
        self._service = service
        self._loop = loop

    @property
    def identity(self) -> str:
        """What tells the model from others."""
        return self._service.predictor.identity

    def predict_batch(self, scans: Sequence[ImageSource], **options: Any) -> Sequence[Result | VividMedError]:
        """As :meth:`vividmed.inference.predictor.Predictor.predict_batch`.

        Raises:
            VividMedError: the server is shutting down.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(scans, options), self._loop).result()

    async def _ask(self, scans: Sequence[ImageSource], options: dict[str, Any]) -> Any:
        job = CallJob(lambda: self._service.predictor.predict_batch(scans, **options), timeout=math.inf)
        try:
            self._service.engine.submit(job)
        except ApiError as error:
            raise VividMedError(str(error)) from error
        while True:
            event = await job.next_event()
            if isinstance(event, Finished):
                return event.result
            if isinstance(event, Failed):
                raise event.error


def answer_archive(
    service: Service,
    *,
    source: Pacs,
    destination: Pacs,
    filters: dict[str, str] | None = None,
    interval: float = 30.0,
) -> None:
    """Answer studies as they arrive, from the server's start to its end.

    Args:
        service: the model, before its server starts.
        source: archive of the images.
        destination: archive of the results.
        filters: attributes of the studies, as in :meth:`vividmed.pacs.client.Pacs.find_studies`.
        interval: seconds between two looks.
    """
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start() -> None:
        predictor = QueuedPredictor(service, asyncio.get_running_loop())
        thread = threading.Thread(
            target=watch,
            args=(predictor,),
            kwargs={
                "source": source,
                "destination": destination,
                "stop": stop,
                "question": Question(model=service.settings.model_name),
                "filters": filters,
                "interval": interval,
                "report": _log,
            },
            name="vividmed-archive",
            daemon=True,
        )
        threads.append(thread)
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join()

    service.at_start.append(start)
    service.at_stop.append(stop.set)
    service.at_close.append(join)


def _log(outcome: Outcome) -> None:
    logger.info("a study is %s: %d objects stored", outcome.state, outcome.stored)
