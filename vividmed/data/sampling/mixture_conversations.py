"""Conversations about the rows of a mixture, by the settings of the data set that each row comes from."""

from collections.abc import Mapping
from typing import Any

from vividmed.data.conversations import Conversation, build_conversation, sample_generator
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.errors import VividMedError


def mixture_conversation(rows: Any, row: Mapping[str, Any]) -> Conversation | None:
    """The conversation about a row if a mixture gave it.

    Args:
        rows: what is trained on: a mixture, its stream, or a plain data set.
        row: a row of ``rows``, or of a plain data set that is evaluated on.

    Returns:
        A conversation, which is a function of the mixture's seed and the row's epoch and index; None for a row of a
        plain data set.

    Raises:
        VividMedError: no conversation can be drawn; the message names the data set and the row.
    """
    config = getattr(rows, "config", None)
    if not isinstance(config, MixtureConfig) or "dataset" not in row:
        return None
    return draw_conversation(config.entry(row["dataset"]), row, seed=config.seed)


def draw_conversation(entry: MixtureEntry, row: Mapping[str, Any], *, seed: int) -> Conversation:
    """The conversation about a row of one data set of a mixture.

    Args:
        entry: data set that the row comes from.
        row: a row with ``epoch`` and ``index``.
        seed: seed of the mixture.

    Raises:
        VividMedError: no conversation can be drawn; the message names the data set and the row.
    """
    generator = sample_generator(seed=seed, epoch=row["epoch"] or 0, index=row["index"])
    try:
        return build_conversation(entry.row_kind, row, generator=generator, settings=entry.conversation)
    except VividMedError as error:
        raise VividMedError(f"{entry.name}: {error}") from error
