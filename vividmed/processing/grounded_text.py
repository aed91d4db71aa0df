"""Convert marked text, ``a small<p> nodule</p> in``, to clean text and phrase spans, and back."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from vividmed.errors import VividMedError
from vividmed.processing.special_tokens import (
    NEGATIVE_PHRASE_END,
    NEGATIVE_PHRASE_START,
    PHRASE_END,
    PHRASE_START,
    SPECIAL_TOKENS,
)

_MARKERS = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
_CLOSING = {PHRASE_START: PHRASE_END, NEGATIVE_PHRASE_START: NEGATIVE_PHRASE_END}
_PHRASE_MARKERS = re.compile("|".join(re.escape(token) for pair in _CLOSING.items() for token in pair))


@dataclass(frozen=True)
class PhraseSpan:
    """A phrase of a clean text: ``text[start:end]``.

    Attributes:
        text: the phrase.
        start: first character.
        end: one past the last character.
        prompt_index: which ``</p>`` of the marked text closes it, counted from 0; the model makes one grounding prompt
            per ``</p>``.
    """

    text: str
    start: int
    end: int
    prompt_index: int


@dataclass(frozen=True)
class ParsedText:
    """Text without markers, and its phrases in order."""

    text: str
    phrases: tuple[PhraseSpan, ...]


@dataclass(frozen=True, eq=False)
class Phrase:
    """A phrase of a text and where it is in the image, on the image's original grid.

    Attributes:
        text: the phrase.
        start: first character in the text.
        end: one past the last character.
        mask: (D, H, W) bool; None if no mask was asked for or found.
        boxes: (n, 6) float, voxel corners (z0, y0, x0, z1, y1, x1), half-open, best first.
        scores: (n,) float in [0, 1], one per box.
        boxes_mm: (n, 6) float, the millimetre boxes around them, (x0, y0, z0, x1, y1, z1) in RAS+.
        presence: how sure the model is that what the phrase names is in the image, in [0, 1]: the highest probability
            of a voxel of its mask or of one of its boxes; None if nobody looked.
    """

    text: str
    start: int
    end: int
    mask: np.ndarray | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    boxes_mm: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))
    presence: float | None = None


@dataclass(frozen=True, eq=False)
class GroundedText:
    """A text without markers, and its phrases in order."""

    text: str
    phrases: list[Phrase] = field(default_factory=list)


def parse_grounded_text(marked: str) -> ParsedText:
    """Separate a text from its markers.

    Accepts whatever a model writes and never raises. An opening marker without a closing one, a closing one without an
    opening one and an empty phrase give no phrase; of two opening markers in a row the later one counts. White space
    at the beginning of the text and of a phrase belongs to neither.
    """
    clean, phrases = "", []
    opened: int | None = None
    closed = cursor = 0
    for marker in [*_MARKERS.finditer(marked), None]:
        piece = marked[cursor : marker.start() if marker else None]
        clean += piece if clean else piece.lstrip()
        if marker is None:
            break
        cursor = marker.end()
        if marker.group() == PHRASE_START:
            opened = len(clean)
        elif marker.group() == PHRASE_END:
            if opened is not None and (phrase := clean[opened:].strip()):
                start = clean.index(phrase, opened)
                phrases.append(PhraseSpan(phrase, start, start + len(phrase), closed))
            opened = None
            closed += 1
    return ParsedText(clean.rstrip(), tuple(phrases))


def parse_grounded_ids(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> ParsedText:
    """Decode generated token ids and parse the text; begin, end and padding tokens are dropped."""
    unwanted = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    kept = [int(token) for token in ids if int(token) not in unwanted]
    return parse_grounded_text(tokenizer.decode(kept, skip_special_tokens=False))


def find_marker(text: str) -> str | None:
    """First phrase marker that a text contains."""
    found = _PHRASE_MARKERS.search(text)
    return found and found.group()


def unpaired_marker(text: str) -> str | None:
    """First phrase marker of a text that does not open or close a phrase; phrases may not be nested."""
    expected, opened = None, None
    for match in _PHRASE_MARKERS.finditer(text):
        marker = match.group()
        if expected is None:
            if marker not in _CLOSING:
                return marker
            opened, expected = marker, _CLOSING[marker]
        elif marker == expected:
            expected = None
        else:
            return marker
    return opened if expected is not None else None


def format_grounded_text(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Put markers around the spans of a clean text; the inverse of :func:`parse_grounded_text`.

    The space before a phrase moves inside (``small<p> nodule</p>``), so that the phrase's tokens stay those of
    running text.

    Args:
        text: text without markers.
        spans: (start, end) characters of phrases, which do not overlap, in any order.

    Raises:
        VividMedError: the text contains a marker, or a span is empty, outside the text, or overlaps another.
    """
    if found := _MARKERS.search(text):
        raise VividMedError(
            f"text contains the marker {found.group()} at character {found.start()}; remove it"
        )
    marked, cursor = "", 0
    for start, end in sorted(spans):
        if not cursor <= start < end <= len(text) or text[start].isspace() or text[end - 1].isspace():
            raise VividMedError(
                f"phrase span ({start}, {end}) of a text of {len(text)} characters is empty, outside it, overlaps "
                "another or starts or ends with white space; give start and one past the end of each phrase"
            )
        lead = text[cursor:start]
        space = " " if lead.endswith(" ") or start == 0 else ""
        marked += f"{lead.removesuffix(' ')}{PHRASE_START}{space}{text[start:end]}{PHRASE_END}"
        cursor = end
    return marked + text[cursor:]
