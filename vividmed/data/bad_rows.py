"""One rule for rows that cannot be prepared: the row is named, and stops the run or is skipped, as asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

from transformers.utils import logging

from vividmed.errors import VividMedError

logger = logging.get_logger(__name__)

OnBadSample = Literal["error", "skip"]
_Sample = TypeVar("_Sample")


class Rows(Protocol):
    """Rows by index, such as ``KeyedRows`` or a ``Mixture``."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def row_name(row: Mapping[str, Any]) -> str:
    """Name of a row in messages: its id, or its index if it has none."""
    return str(row.get("id") or row.get("index", "?"))


def prepare_row(row: Mapping[str, Any], prepare: Callable[[Mapping[str, Any]], _Sample]) -> _Sample:
    """Prepare one row.

    Raises:
        VividMedError: the row cannot be prepared, for whatever reason: rows come from outside, and the libraries that
            read them raise exceptions of any type. The message names the row.
    """
    name = f"row {row_name(row)}"
    try:
        return prepare(row)
    except VividMedError as error:
        text = str(error)
        raise VividMedError(text if name in text else f"{name}: {text}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise VividMedError(f"{name}: cannot be prepared ({reason}); fix or remove it") from error


@contextmanager
def skip_or_raise(on_bad_sample: OnBadSample) -> Iterator[None]:
    """Stop at a row that cannot be used, or skip it with a warning, as asked.

    Raises:
        VividMedError: the row cannot be used and is not to be skipped.
    """
    try:
        yield
    except VividMedError as error:
        if on_bad_sample == "error":
            raise
        logger.warning(f"skipped: {error}")


def usable_rows(
    rows: Rows,
    indices: Iterable[int],
    prepare: Callable[[Mapping[str, Any]], Any],
    *,
    on_bad_sample: OnBadSample,
) -> list[Mapping[str, Any]]:
    """Take those of some rows that can be prepared; what is prepared is dropped.

    Args:
        rows: rows by index, images encoded.
        indices: rows to take.
        prepare: turns a row into a sample.
        on_bad_sample: ``"error"`` stops at a row that cannot be prepared; ``"skip"`` leaves it out with a warning.

    Raises:
        VividMedError: a row cannot be prepared and is not to be skipped.
    """
    usable = []
    for index in indices:
        row = rows[index]
        with skip_or_raise(on_bad_sample):
            prepare_row(row, prepare)
            usable.append(row)
    return usable


def prepare_rows(
    rows: Iterable[Mapping[str, Any]],
    prepare: Callable[[Mapping[str, Any]], _Sample],
    *,
    on_bad_sample: OnBadSample,
    spare_rows: Rows | Sequence[Mapping[str, Any]] = (),
) -> tuple[list[_Sample], bool]:
    """Prepare the rows of a batch.

    Args:
        rows: rows of the batch.
        prepare: turns a row into a sample.
        on_bad_sample: ``"error"`` stops at a row that cannot be prepared; ``"skip"`` leaves it out with a warning.
        spare_rows: with ``"skip"``, rows to take one from if no row of the batch is left.

    Returns:
        The samples, and whether the only one is a spare, which must not be learnt from.

    Raises:
        VividMedError: a row cannot be prepared and is not to be skipped, or neither a row of the batch nor a spare row
            can be prepared.
    """
    samples = []
    for row in rows:
        with skip_or_raise(on_bad_sample):
            samples.append(prepare_row(row, prepare))
    if samples:
        return samples, False
    for index in range(len(spare_rows)):
        try:
            return [prepare_row(spare_rows[index], prepare)], True
        except VividMedError:
            continue
    raise VividMedError(
        "no row of a whole batch can be used (see the warnings above); fix or remove these rows"
    )
