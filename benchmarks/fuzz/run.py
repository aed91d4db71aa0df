"""Try inputs within bounds of time and memory, and count how they end."""

import contextlib
import io
import logging
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.subject import Subject
from vividmed.errors import VividMedError


class Overrun(BaseException):
    """An input took longer than it may; not an ``Exception``, so that no reader turns it into its own error."""


@dataclass
class Fault:
    """An input that ended in anything but success or one line.

    Attributes:
        subject: kind of input.
        index: number of the input; with the seed it gives the same input again.
        error: type and first line.
        place: file and line of the package where it arose.
        details: whole traceback.
    """

    subject: str
    index: int
    error: str
    place: str
    details: str


@dataclass
class Outcome:
    """How the inputs of one kind ended."""

    subject: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return self.accepted + self.refused + len(self.faults)


def fuzz(
    subject: Subject, indices: Sequence[int], *, seed: int, max_seconds: float, max_bytes: int
) -> Outcome:
    """Try the inputs of one kind.

    Args:
        subject: kind of input.
        indices: which inputs; each depends on the seed, the kind and its index only.
        seed: of the inputs.
        max_seconds: longest time that one input may take.
        max_bytes: largest growth of the process's peak memory that one input may cause.
    """
    outcome = Outcome(subject.name)
    for index in indices:
        rng = Random(f"{seed}/{subject.name}/{index}")
        before, start = _peak_bytes(), time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, _quiet():
            try:
                with _time_limit(max_seconds):
                    subject.try_one(rng, Path(folder))
                grown = _peak_bytes() - before
                if grown > max_bytes:
                    raise MemoryError(f"peak memory grew by {grown >> 20} MiB")
                outcome.accepted += 1
            except VividMedError as error:
                grown = _peak_bytes() - before
                if "\n" in str(error) or grown > max_bytes:
                    outcome.faults.append(_fault(subject.name, index, error))
                else:
                    outcome.refused += 1
            except (Exception, Overrun, SystemExit) as error:
                outcome.faults.append(_fault(subject.name, index, error))
        outcome.slowest = max(outcome.slowest, time.monotonic() - start)
    return outcome


def fuzz_kind(kind: type[Subject], indices: Sequence[int], **options: Any) -> Outcome:
    """Call :func:`fuzz` in a process of its own, which cannot import functions of ``__main__``."""
    return fuzz(kind(), indices, **options)


def _fault(subject: str, index: int, error: BaseException) -> Fault:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "vividmed" in frame.filename] or list(frames)
    lines = str(error).strip().splitlines() or [""]
    return Fault(
        subject,
        index,
        f"{type(error).__name__}: {lines[0][:150]}",
        f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?",
        "".join(traceback.format_exception(error)),
    )


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Overrun(f"still running after {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
