"""Colours of findings: the seven of Okabe and Ito, distinct for every common colour vision, then tints of them.

Colours repeat after fourteen findings. Findings therefore also carry their number wherever they are drawn.

Reference: M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

Colour = tuple[int, int, int]

_OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
_TINT = 0.5


def finding_colour(number: int) -> Colour:
    """Return the colour of the finding with this number, counted from 1; sRGB, 0 to 255."""
    turn, place = divmod(number - 1, len(_OKABE_ITO))
    return _tinted(_OKABE_ITO[place]) if turn % 2 else _OKABE_ITO[place]


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever contrasts more with a background (contrast ratio of WCAG 2)."""
    luminance = sum(
        weight * _linear(value) for weight, value in zip((0.2126, 0.7152, 0.0722), background, strict=True)
    )
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def _tinted(colour: Colour) -> Colour:
    red, green, blue = (round(value + (255 - value) * _TINT) for value in colour)
    return red, green, blue


def _linear(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
