"""Exchanges left and right in target names and free text, for images that are flipped along the left-right axis.

A mirrored image needs a mirrored text. In most places *left* and *right* in a report name a side of the body and
change, but not in all:

- Structures recognised by their shape keep their names, as in situs inversus: heart chambers and valves, coronary
  arteries, lobes and segments of the liver, left-to-right shunts, bundle branches.
- *Left* as a form of *leave* (``left in place``, ``was left untreated``) and *right* in ``all right`` or ``right angle``
  are not sides. They are recognised by the words around them; any other phrase is taken for a side.
- The middle lobe of the right lung has no counterpart. :func:`is_swappable` is then False, and the image should not be
  flipped.

Words for both sides (``bilateral``, ``both``) and views (``left lateral decubitus`` names the side the patient lay on
and is mirrored with the image) need no rule of their own.
"""

import re

_OPPOSITE = {
    "left": "right",
    "leftward": "rightward",
    "leftwards": "rightwards",
    "leftmost": "rightmost",
    "lt": "rt",
    "levoscoliosis": "dextroscoliosis",
    "levoconvex": "dextroconvex",
    "levocurvature": "dextrocurvature",
    "levorotation": "dextrorotation",
    "lul": "rul",
    "lll": "rll",
    "luq": "ruq",
    "llq": "rlq",
}
_OPPOSITE |= {right: left for left, right in _OPPOSITE.items()}
_ABBREVIATIONS = frozenset({"lul", "lll", "luq", "llq", "rul", "rll", "ruq", "rlq"})

_SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)
_SIDED_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_OPPOSITE, key=len, reverse=True))})\b", re.IGNORECASE)

_SIDES = r"(?:left|right)"
_KEPT = re.compile(
    "|".join(
        (
            # Heart, coronary arteries, conduction, shunts: named by shape.
            rf"\b{_SIDES}(?:\s+(?:main|heart|cardiac|dominant))*"
            r"\s+(?:atri(?:um|a|al)|ventric(?:le|les|ular)|auric(?:le|ular)|coronary|circumflex)\b",
            rf"\b{_SIDES}\s+(?:anterior\s+descending|bundle\s+branch|heart\s+(?:failure|strain|catheteri[sz]ation))\b",
            rf"\b{_SIDES}[ -]to[ -]{_SIDES}\s+(?:\w+\s+)?shunt\w*",
            # Lobes, sections and segments of the liver.
            rf"\b{_SIDES}\s+(?:hepatic|liver)\s+lobe\b",
            rf"\b{_SIDES}\s+lobe\s+of\s+(?:the\s+)?liver\b",
            rf"\b{_SIDES}(?:\s+(?:lateral|medial|anterior|posterior|superior|inferior))+\s+"
            r"(?:hepatic\s+(?:segment|section|sector)|(?:segment|section|sector)\s+of\s+(?:the\s+)?liver)\b",
            # "left" of "leave".
            r"\bleft\s+(?:in\s+(?:place|situ)|untreated|unrepaired|alone|behind|open)\b",
            r"\bleft\s+(?:the\s+(?:hospital|department|clinic)|against\s+medical\s+advice|ama)\b",
            # "right" that is not a side.
            r"\ball\s+right\b",
            r"\bright(?:\s+(?:now|away|angles?)|[ -]angled)\b",
        )
    ),
    re.IGNORECASE,
)
_UNPAIRED = re.compile(
    r"\b(?:right|left)\s+(?:lung\s+)?middle\s+lobe\b|\bmiddle\s+lobe\s+of\s+(?:the\s+)?right\s+lung\b|\brml\b|"
    r"\blingula\w*\b|\bright\s+(?:minor|horizontal)\s+fissure\b",
    re.IGNORECASE,
)


def has_side(text: str) -> bool:
    """Whether the text contains the word *left* or *right*."""
    return _SIDE.search(text) is not None


def swap_sides(text: str) -> str:
    """Exchange every *left* and *right* and all words and abbreviations made from them; case is kept.

    For names only. For sentences use :func:`swap_text`, which knows the words that do not change.
    """
    return _SIDED_WORD.sub(lambda match: _swap_word(match.group()), text)


def swap_text(text: str) -> str:
    """Turn a text into one that describes the mirrored image.

    Whole words are exchanged and keep their case (``Left-sided`` -> ``Right-sided``); the exceptions are listed in the
    module's docstring. Applying it twice restores the text, unless a swapped word reads like an exception (``right in
    place``).

    Args:
        text: a phrase, sentence or report, with or without phrase markers.
    """
    pieces, cursor = [], 0
    for kept in _KEPT.finditer(text):
        pieces += [swap_sides(text[cursor : kept.start()]), kept.group()]
        cursor = kept.end()
    return "".join([*pieces, swap_sides(text[cursor:])])


def is_swappable(text: str) -> bool:
    """Whether the mirrored image can be described: False if a structure is named that only one side has.

    Such structures are the middle lobe and the minor fissure of the right lung and the lingula of the left lung.
    """
    return _UNPAIRED.search(text) is None


def _swap_word(word: str) -> str:
    lower = word.lower()
    if lower in _ABBREVIATIONS and word != word.upper():
        return word
    opposite = _OPPOSITE[lower]
    if word.isupper():
        return opposite.upper()
    return opposite.capitalize() if word[0].isupper() else opposite
