"""One rule for rows that cannot be prepared: the row is named, and stops the run or is skipped, as asked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """What messages call a row: its id, or its index if it has none."""
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
        try:
            samples.append(prepare_row(row, prepare))
        except VividMedError as error:
            if on_bad_sample == "error":
                raise
            logger.warning(f"skipped: {error}")
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
