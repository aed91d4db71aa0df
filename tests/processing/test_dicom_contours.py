"""Contours of structure sets become masks on the grid of their series."""

import numpy as np
import pytest

from tests.fixtures.dicom_files import structure_set, write_series
from vividmed.errors import VividMedError
from vividmed.processing.dicom import contour_names, read_contours
from vividmed.processing.reading import read_image

SIZE = (6, 30, 40)
STEP, ROW, COLUMN = 2.5, 0.8, 0.7


def to_mm(level: float, points: np.ndarray) -> list[float]:
    """Pixels (y, x) of a slice of ``write_series`` in LPS millimetres, as a contour's data."""
    y, x = points.T
    return (
        np.stack([-10 + x * COLUMN, -20 + y * ROW, np.full(len(points), level * STEP)], axis=1)
        .ravel()
        .tolist()
    )


def box(y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def circle(y: float, x: float, radius_mm: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([y + radius_mm / ROW * np.sin(angles), x + radius_mm / COLUMN * np.cos(angles)], axis=1)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE) % 500)
    return folder, read_image(folder)


def test_pixels_whose_centre_is_inside_belong_to_the_region(series, tmp_path):
    _, image = series
    path = structure_set(tmp_path / "rs.dcm", [("GTV", [to_mm(2, box(4.5, 9.5, 12.5, 20.5))]), ("empty", [])])
    assert contour_names(path) == ["GTV", "empty"]
    masks = read_contours(path, image)
    expected = np.zeros(SIZE, dtype=bool)
    expected[2, 5:13, 10:21] = True
    if image.affine[2, 2] < 0:  # slices are kept in the order of the series
        expected = expected[::-1]
    np.testing.assert_array_equal(masks["GTV"], expected)
    assert not masks["empty"].any()


def test_a_contour_inside_another_is_a_hole_and_two_apart_are_two_parts(series, tmp_path):
    _, image = series
    outer, hole, other = circle(14, 16, 8), circle(14, 16, 4), circle(14, 34, 3)
    path = structure_set(
        tmp_path / "rs.dcm", [("ring", [to_mm(3, points) for points in (outer, hole, other)])]
    )
    mask = read_contours(path, image, ["ring"])["ring"]
    area = mask.sum() * ROW * COLUMN
    assert area == pytest.approx(np.pi * (8**2 - 4**2 + 3**2), rel=0.03)
    assert mask.any(axis=(1, 2)).sum() == 1
    level = mask[mask.any(axis=(1, 2))][0]
    assert not level[14, 16]
    assert level[14, 34]


def test_the_structure_set_may_lie_beside_its_series(series, tmp_path):
    folder, image = series
    path = structure_set(folder / "structures.dcm", [("GTV", [to_mm(0, box(1, 1, 9, 9))])])
    again = read_image(folder)
    np.testing.assert_array_equal(again.array, image.array)
    assert read_contours(path, again)["GTV"].any()
    path.unlink()


@pytest.mark.parametrize(
    ("regions", "fields", "names", "message"),
    [
        ([("GTV", [to_mm(2, box(1, 1, 9, 9))])], {"Modality": "CT"}, None, "is not a structure set"),
        ([("GTV", [])], {}, ["PTV"], "has no region of interest 'PTV'; it has GTV"),
        ([("GTV", []), ("GTV", [])], {}, None, "several regions of interest are called 'GTV'"),
        ([("GTV", [to_mm(40, box(1, 1, 9, 9))])], {}, None, "contour 1 of 'GTV': lies at slice"),
        ([("GTV", [[0, 0, 0, 5, 0, 5, 5, 5, 10]])], {}, None, "does not lie in the plane of a slice"),
        ([("GTV", [[0, 0, 0, 5, 0, 5, 5]])], {}, None, "the contours cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(series, tmp_path, regions, fields, names, message):
    path = structure_set(tmp_path / "rs.dcm", regions, **fields)
    with pytest.raises(VividMedError, match=message) as caught:
        read_contours(path, series[1], names)
    assert "\n" not in str(caught.value)


def test_an_image_without_a_place_in_the_patient_is_refused(tmp_path):
    path = structure_set(tmp_path / "rs.dcm", [("GTV", [])])
    with pytest.raises(VividMedError, match="its place in the patient is unknown"):
        read_contours(path, read_image(np.zeros((4, 8, 8), np.int16) + np.arange(8, dtype=np.int16)))
