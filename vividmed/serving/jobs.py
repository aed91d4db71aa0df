"""Work for the model: questions, which are answered in batches, and calls, which are made one at a time."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from vividmed.processing.grounded_text import GroundedText, parse_grounded_ids
from vividmed.processing.medical_image import MedicalImage

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class Written:
    """A piece of an answer's text."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The end of a job, with its result."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """The end of a job that raised an exception."""

    error: Exception


Event = Written | Finished | Failed


class Job:
    """Something for the model to do, whose events are read in an event loop.

    Args:
        timeout: seconds from now until the job is given up.
    """

    def __init__(self, *, timeout: float):
        self.started_at = time.monotonic()
        self.deadline = self.started_at + timeout
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    @property
    def is_late(self) -> bool:
        """Whether the job's time is over."""
        return time.monotonic() > self.deadline

    def cancel(self) -> None:
        """Give the job up; the model stops working on it at its next token."""
        self.cancelled = True

    def emit(self, event: Event) -> None:
        """Hand an event to the reader; called by the model's thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the event loop has ended, and with it the reader
            self.cancelled = True

    async def next_event(self) -> Event:
        """Wait for the next event."""
        return await self._events.get()


class CallJob(Job):
    """A function to call on the model's thread."""

    def __init__(self, call: Callable[[], Any], *, timeout: float):
        super().__init__(timeout=timeout)
        self.call = call


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; questions with equal settings are answered together.

    Attributes:
        grounding: whether phrases are marked and placed.
        temperature: 0 takes the most likely token.
        top_p: smallest probability mass to draw from.
        seed: of the draw; such a question is answered alone, so that its answer can be repeated.
    """

    grounding: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the model wrote, with its places, and what that took.

    Attributes:
        grounded: text and phrases.
        finish_reason: ``stop``, or ``length`` if the limit of tokens ended the text.
        prompt_tokens: positions of the prompt, images included.
        written_tokens: tokens of the answer.
    """

    grounded: GroundedText
    finish_reason: str
    prompt_tokens: int
    written_tokens: int


class QuestionJob(Job):
    """A conversation whose last question the model answers.

    Args:
        images: of the conversation.
        messages: checked messages without image content.
        sampling: how tokens are chosen.
        max_new_tokens: longest answer.
        tokenizer: of the model.
        timeout: seconds.
    """

    def __init__(
        self,
        images: Sequence[MedicalImage],
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: Sampling,
        max_new_tokens: int,
        tokenizer: PreTrainedTokenizerBase,
        timeout: float,
    ):
        super().__init__(timeout=timeout)
        self.images = list(images)
        self.messages = list(messages)
        self.sampling = sampling
        self.max_new_tokens = max_new_tokens
        self.finish_reason: str | None = None
        self.first_token_at: float | None = None
        self.ids: list[int] = []
        self._tokenizer = tokenizer
        self._sent = ""

    def receive(self, token: int, end_ids: set[int]) -> bool:
        """Take the next token of the answer; returns whether the answer ends here."""
        if self.finish_reason is None:
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            if token in end_ids:
                self.finish_reason = "stop"
            else:
                self.ids.append(token)
                if not self._tokenizer.convert_ids_to_tokens(token).startswith("<0x"):
                    # Bytes at the end are read together, so their characters may change with the next one.
                    self._send(parse_grounded_ids(self.ids, self._tokenizer).text.rstrip(_INCOMPLETE))
                if len(self.ids) >= self.max_new_tokens:
                    self.finish_reason = "length"
        return self.finish_reason is not None or self.cancelled or self.is_late

    def finish(self, grounded: GroundedText, prompt_tokens: int) -> None:
        """Send the rest of the text, and the answer."""
        self._send(grounded.text)
        reason = self.finish_reason or "length"
        self.emit(Finished(Answer(grounded, reason, prompt_tokens, len(self.ids))))

    def _send(self, text: str) -> None:
        if text.startswith(self._sent) and len(text) > len(self._sent):
            self.emit(Written(text[len(self._sent) :]))
            self._sent = text
