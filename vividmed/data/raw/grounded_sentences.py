"""Reports whose sentences are grounded one by one."""

from collections.abc import Iterable, Sequence
from typing import Any

from vividmed.data.raw.report_text import clean_text

_END = " .!?;,"


def mark_sentences(
    sentences: Iterable[tuple[Any, Sequence[str]]],
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Join sentences, each with a full stop, and mark those that show something.

    Sentences that only say that nothing was given are left out.

    Args:
        sentences: text and the names of the masks or boxes that it describes; without names it stays unmarked.

    Returns:
        The text with ``<p>phrase</p>``, and the names of each phrase in order.
    """
    parts: list[str] = []
    phrases: list[tuple[str, ...]] = []
    for text, names in sentences:
        line = clean_text(text).rstrip(_END)
        if not line:
            continue
        if names:
            phrases.append(tuple(names))
        parts.append(f"<p>{line}</p>." if names else f"{line}.")
    return " ".join(parts), tuple(phrases)
