"""Draw a report as an image: wrapped text, its phrases on the colours of their findings."""

import re
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from vividmed.export.findings import Finding, split_text
from vividmed.export.fonts import Font, FontOfSize
from vividmed.export.palette import text_colour

BACKGROUND = (24, 26, 30)
FOREGROUND = (232, 234, 237)
MUTED = (150, 154, 160)
"""Phrases without a finding, and captions."""

_FONT_SIZE = 20
_NUMBER_SIZE = 14
_LINE_HEIGHT = 32
_MARGIN = 24


_NUMBER_GAP = 3
_TOKENS = re.compile(r"\n|[^\S\n]+|\S+")
"""Line breaks, other white space, words."""


@dataclass(frozen=True)
class _Part:
    """A word, a space, a line break, or the number of a finding."""

    text: str
    finding: Finding | None
    is_number: bool = False


@dataclass(frozen=True)
class _Run:
    """A part and where it is drawn."""

    left: float
    line: int
    part: _Part


def draw_text_panel(text: str, findings: list[Finding], width: int, font_of_size: FontOfSize) -> Image.Image:
    """Draw a report.

    Args:
        text: the report.
        findings: its phrases. Those found in the image stand on their colour and are followed by their number; the
            others are grey.
        width: pixels.
        font_of_size: the font.

    Returns:
        An RGB image, as tall as the text needs.
    """
    font, small = font_of_size(_FONT_SIZE), font_of_size(_NUMBER_SIZE)
    runs = _lay_out(text, findings, width - 2 * _MARGIN, font, small)
    lines = max((run.line for run in runs), default=-1) + 1
    panel = Image.new("RGB", (width, 2 * _MARGIN + lines * _LINE_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for paint in (_draw_background, _draw_text):  # so that no background covers a neighbour's letters
        for run in runs:
            paint(draw, run, small if run.part.is_number else font)
    return panel


def _draw_background(draw: ImageDraw.ImageDraw, run: _Run, font: Font) -> None:
    finding = run.part.finding
    if finding is not None and finding.found:
        left, top = _MARGIN + run.left, _MARGIN + run.line * _LINE_HEIGHT
        right = left + font.getlength(run.part.text)
        draw.rectangle((left - 2, top + 2, right + 2, top + _LINE_HEIGHT - 4), fill=finding.colour)


def _draw_text(draw: ImageDraw.ImageDraw, run: _Run, font: Font) -> None:
    finding = run.part.finding
    colour = FOREGROUND
    if finding is not None:
        colour = text_colour(finding.colour) if finding.found else MUTED
    middle = _MARGIN + _LINE_HEIGHT * (run.line + (0.45 if run.part.is_number else 0.5))
    draw.text((_MARGIN + run.left, middle), run.part.text, colour, font, anchor="lm")


def shorten(text: str, width: float, font: Font) -> str:
    """Put a text on one line and cut its end to fit a width in pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1].rstrip()
    return f"{text}..."


def _lay_out(text: str, findings: list[Finding], width: float, font: Font, small: Font) -> list[_Run]:
    """Break the text into lines at white space and line breaks, and words wider than a line anywhere."""
    runs: list[_Run] = []
    left, line = 0.0, 0
    for cluster in _clusters(text, findings):
        if cluster[0].text == "\n":
            left, line = 0.0, line + 1
            continue
        total = sum(_length(part, font, small) for part in cluster)
        if left + total > width and left:
            if runs[-1].part.text == " ":
                runs.pop()
            left, line = 0.0, line + 1
            if cluster[0].text == " ":
                continue
        for part in cluster:
            while left + _length(part, font, small) > width and len(part.text) > 1:
                count = _fitting(part.text, width - left, font)
                runs.append(_Run(left, line, replace(part, text=part.text[:count])))
                part = replace(part, text=part.text[count:])
                left, line = 0.0, line + 1
            runs.append(_Run(left + (_NUMBER_GAP if part.is_number else 0), line, part))
            left += _length(part, font, small)
    return runs


def _clusters(text: str, findings: list[Finding]) -> list[list[_Part]]:
    """Group parts that stay on one line: a space, a line break, or a word with its number and punctuation."""
    clusters: list[list[_Part]] = []
    glue = False
    for piece, finding in split_text(text, findings):
        parts = [_Part(match.group(), finding) for match in _TOKENS.finditer(piece)]
        if finding is not None and finding.found:
            parts.append(_Part(str(finding.number), finding, is_number=True))
        for part in parts:
            if part.text.isspace():
                clusters.append([replace(part, text="\n" if part.text == "\n" else " ")])
            elif glue:
                clusters[-1].append(part)
            else:
                clusters.append([part])
            glue = not part.text.isspace()
    return clusters


def _length(part: _Part, font: Font, small: Font) -> float:
    return small.getlength(part.text) + 2 * _NUMBER_GAP if part.is_number else font.getlength(part.text)


def _fitting(word: str, width: float, font: Font) -> int:
    """Count the characters of a word that fit a width; at least one."""
    count = 1
    while count < len(word) and font.getlength(word[: count + 1]) <= width:
        count += 1
    return count
