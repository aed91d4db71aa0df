"""A report as a picture: wrapped text, its phrases on the colours of their findings."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Run:
    """Part of a line that is drawn in one go."""

    left: float
    line: int
    text: str
    finding: Finding | None
    number: bool = False


def draw_text_panel(text: str, findings: list[Finding], width: int, font_of_size: FontOfSize) -> Image.Image:
    """Draw a report.

    Args:
        text: the report.
        findings: its phrases. Those found in the image stand on their colour and are followed by their number; the
            others are grey.
        width: pixels.
        font_of_size: the font.

    Returns:
        An RGB picture, as tall as the text needs.
    """
    font, small = font_of_size(_FONT_SIZE), font_of_size(_NUMBER_SIZE)
    runs = _lay_out(text, findings, width - 2 * _MARGIN, font, small)
    lines = max((run.line for run in runs), default=-1) + 1
    panel = Image.new("RGB", (width, 2 * _MARGIN + lines * _LINE_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for run in runs:
        left, top = _MARGIN + run.left, _MARGIN + run.line * _LINE_HEIGHT
        colour = FOREGROUND
        if run.finding is not None and not run.finding.found:
            colour = MUTED
        elif run.finding is not None:
            right = left + draw.textlength(run.text, small if run.number else font)
            draw.rectangle((left - 2, top + 2, right + 2, top + _LINE_HEIGHT - 4), fill=run.finding.colour)
            colour = text_colour(run.finding.colour)
        if run.number:
            draw.text((left, top + _LINE_HEIGHT * 0.45), run.text, colour, small, anchor="lm")
        else:
            draw.text((left, top + _LINE_HEIGHT / 2), run.text, colour, font, anchor="lm")
    return panel


def shorten(text: str, width: float, font: Font) -> str:
    """The text in one line, its end cut to fit a width in pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1].rstrip()
    return f"{text}..."


def _lay_out(text: str, findings: list[Finding], width: float, font: Font, small: Font) -> list[_Run]:
    """Break the text into lines at white space and line breaks, and too long words anywhere."""
    runs: list[_Run] = []
    left, line = 0.0, 0
    for piece, finding in split_text(text, findings):
        for word in _words(piece):
            if word == "\n":
                left, line = 0.0, line + 1
                continue
            if word == " ":
                if left and left + font.getlength(" ") <= width:
                    runs.append(_Run(left, line, " ", finding))
                    left += font.getlength(" ")
                continue
            if left and left + font.getlength(word) > width:
                left, line = 0.0, line + 1
            while font.getlength(word) > width:
                count = _fitting(word, width, font)
                runs.append(_Run(left, line, word[:count], finding))
                word, left, line = word[count:], 0.0, line + 1
            runs.append(_Run(left, line, word, finding))
            left += font.getlength(word)
        if finding is not None and finding.found:
            runs.append(_Run(left + 3, line, str(finding.number), finding, number=True))
            left += small.getlength(str(finding.number)) + 6
    return runs


def _words(piece: str) -> list[str]:
    """Words, single spaces between them and line breaks."""
    words: list[str] = []
    for number, paragraph in enumerate(piece.replace("\r\n", "\n").replace("\t", " ").split("\n")):
        if number:
            words.append("\n")
        for place, word in enumerate(paragraph.split(" ")):
            if place and words[-1:] != [" "]:
                words.append(" ")
            if word:
                words.append(word)
    return words


def _fitting(word: str, width: float, font: Font) -> int:
    """How many characters of a word fit a width; at least one."""
    count = 1
    while count < len(word) and font.getlength(word[: count + 1]) <= width:
        count += 1
    return count
