"""Lungs by rule, on a synthetic chest whose truth is known."""

import numpy as np
import pytest

from vividmed.data.sample.rules import label_lungs

SIZE, SPACING = (20, 60, 90), (5.0, 4.0, 4.0)


def ellipsoid(centre, radii) -> np.ndarray:
    axes = np.ogrid[: SIZE[0], : SIZE[1], : SIZE[2]]
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) < 1


def chest() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two lungs with a vessel, a trachea, gas in the stomach, and the air around the patient."""
    body = ellipsoid((10, 30, 45), (100, 27, 42))
    truth = {
        "right lung": ellipsoid((10, 30, 25), (9, 16, 13)),
        "left lung": ellipsoid((10, 30, 66), (9, 16, 12)),
    }
    array = np.where(body, 40, -1000)
    array[truth["right lung"] | truth["left lung"]] = -850
    array[:, 29:31, 20:28] = np.where(array[:, 29:31, 20:28] == -850, 40, array[:, 29:31, 20:28])
    array[12:, 26:30, 44:48] = -1000
    array[0:2, 18:21, 48:52] = -1000
    return array.astype(np.int16), truth


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("cut", [None, 78])
def test_lungs_are_found_and_told_apart(cut):
    array, truth = chest()
    window = (slice(None), slice(None), slice(cut))
    array = array[window]
    lungs = label_lungs(array, SPACING, array > -400)
    for name, expected in truth.items():
        assert dice(lungs[name], expected[window]) > 0.97
    assert not (lungs["right lung"] & lungs["left lung"]).any()
    assert not (lungs["right lung"] | lungs["left lung"])[14, 26:30, 44:48].any(), "the trachea is not lung"


def test_an_image_without_lungs_has_none():
    array = np.full(SIZE, 40, np.int16)
    assert not any(mask.any() for mask in label_lungs(array, SPACING, array > -400).values())
