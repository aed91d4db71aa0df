"""Fonts for text in images."""

from collections.abc import Callable
from pathlib import Path

from PIL import ImageFont

from vividmed.errors import VividMedError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FontOfSize = Callable[[int], Font]

_COMMON = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "Helvetica.ttc",
)
"""Fonts of most systems, with accented Latin, Greek and the symbols of reports; Pillow finds them by name."""


def load_font(path: str | Path | None = None) -> FontOfSize:
    """Find a font.

    Args:
        path: a TrueType or OpenType file, for scripts such as Chinese that the system's common fonts lack. Without it,
            a common font of the system, else Pillow's own, which has few letters beyond ASCII.

    Returns:
        A function from a size in pixels to the font.

    Raises:
        VividMedError: the file is not a readable font.
    """
    if path is not None:
        try:
            font = ImageFont.truetype(path)
        except OSError as error:
            raise VividMedError(f"{path}: not a readable font ({error}); give a .ttf or .otf file") from error
        return lambda size: font.font_variant(size=size)
    for name in _COMMON:
        try:
            common = ImageFont.truetype(name)
        except OSError:
            continue
        return lambda size: common.font_variant(size=size)
    return ImageFont.load_default
