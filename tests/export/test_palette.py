import itertools

import numpy as np
import pytest

from vividmed.export.palette import finding_colour, text_colour

# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour) -> np.ndarray:
    share = np.asarray(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(colour, vision: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ (vision @ linear(colour)).clip(0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION.values(), ids=VISION.keys())
def test_the_first_seven_colours_differ_for_every_colour_vision(vision):
    colours = [lab(finding_colour(number), vision) for number in range(1, 8)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > 10


def test_fourteen_colours_differ_and_then_repeat():
    colours = [finding_colour(number) for number in range(1, 15)]
    assert len(set(colours)) == 14
    assert finding_colour(15) == colours[0]


@pytest.mark.parametrize("number", range(1, 15))
def test_text_on_a_colour_is_readable(number):
    colour = finding_colour(number)
    luminances = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (colour, text_colour(colour)))
    assert (luminances[1] + 0.05) / (luminances[0] + 0.05) >= 4.5
