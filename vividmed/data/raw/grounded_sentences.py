"""Reports whose sentences are grounded one by one."""

import re
from collections.abc import Iterable, Sequence

_END = re.compile(r"\s*[.!?;,]*\s*\Z")


def mark_sentences(
    sentences: Iterable[tuple[str, Sequence[str]]],
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Join sentences, each with a full stop, and mark those that show something.

    Args:
        sentences: Text and the names of the masks or boxes that it describes; none leaves it unmarked.

    Returns:
        The text with ``<p>phrase</p>``, and the names of each phrase in order.
    """
    parts: list[str] = []
    phrases: list[tuple[str, ...]] = []
    for text, names in sentences:
        line = _END.sub("", " ".join(text.split()))
        if not line:
            continue
        if names:
            phrases.append(tuple(names))
        parts.append(f"<p>{line}</p>." if names else f"{line}.")
    return " ".join(parts), tuple(phrases)
