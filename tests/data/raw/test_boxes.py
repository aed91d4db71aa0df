import math

import pytest

from vividmed.data.raw.boxes import MARGIN, box_2d, fit_boxes
from vividmed.errors import VividMedError

SIZE = (1, 480, 400)


def test_corners_are_rounded_to_pixel_edges():
    assert box_2d(1.4, "2.6", 10, 20.5, where="row 1") == (0, 3, 1, 1, 20, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "x", "", True, [1]])
@pytest.mark.parametrize("corner", range(4))
def test_a_corner_that_is_no_finite_number_is_refused_with_row_and_corner(value: object, corner: int):
    corners: list[object] = [1, 2, 30, 40]
    corners[corner] = value
    name = ("x0", "y0", "x1", "y1")[corner]
    with pytest.raises(VividMedError, match=f"boxes.csv: line 3: corner {name} of a box contains"):
        box_2d(*corners, where="boxes.csv: line 3")


@pytest.mark.parametrize("corners", [(30, 2, 1, 40), (1, 40, 30, 2), (1, 2, 1, 40), (1e300, 0, 2e300, 5)])
def test_reversed_empty_and_gigantic_boxes_are_refused(corners: tuple[float, ...]):
    with pytest.raises(VividMedError, match=r"boxes\.csv: line 3"):
        box_2d(*corners, where="boxes.csv: line 3")


def _fit(*box: int, drawn_on: tuple[int, int] | None = None, margin: float = MARGIN):
    x0, y0, x1, y1 = box
    ((_, fitted),) = fit_boxes(
        [("mass", (0, y0, x0, 1, y1, x1))], SIZE, drawn_on=drawn_on, margin=margin, source="a.png"
    )
    return fitted


def test_boxes_that_exceed_the_image_a_little_are_cut():
    assert _fit(-3, 5, 406, 485) == (0, 5, 0, 1, 480, 400)


@pytest.mark.parametrize(
    "box", [(100, 5, 440, 30), (100, 5, 800, 960), (-20, 5, 30, 30), (5, -30, 30, 30), (5, 10, 30, 960)]
)
def test_boxes_drawn_on_another_size_are_refused(box: tuple[int, ...]):
    with pytest.raises(VividMedError, match=r"a\.png: the box .* of 'mass' .*another size"):
        _fit(*box)


def test_the_recorded_size_decides():
    assert _fit(100, 5, 440, 30, drawn_on=(480, 400)) == (0, 5, 100, 1, 30, 400)
    with pytest.raises(VividMedError, match=r"drawn on a picture of 960 x 800 pixels .* has 480 x 400"):
        _fit(10, 5, 40, 30, drawn_on=(960, 800))


def test_a_detector_may_exceed_the_image_further():
    assert _fit(300, 5, 480, 30, margin=0.25) == (0, 5, 300, 1, 30, 400)


@pytest.mark.parametrize("drawn_on", [None, (480, 400)])
def test_a_box_outside_the_image_is_refused(drawn_on: tuple[int, int] | None):
    with pytest.raises(VividMedError, match=r"a\.png: the box .* of 'mass' is empty or outside"):
        _fit(10, 482, 30, 484, drawn_on=drawn_on)
