"""Lungs, bone and the outline of the body by rule, on a synthetic chest whose truth is known."""

import numpy as np
import pytest

from vividmed.data.sample.build import label_by_rule
from vividmed.data.sample.rules import LUNGS, label_body, label_bone, label_lungs
from vividmed.data.sample.scan import Scan
from vividmed.data.sample.targets import BODY

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


def test_the_body_contains_lungs_and_bowel_gas_but_not_the_table():
    array, truth = chest()
    array[:, 58:, 10:80] = 300
    tissue = array > -400
    tissue[:, 58:] = False
    body = label_body(tissue)
    assert dice(body, ellipsoid((10, 30, 45), (100, 27, 42))) > 0.99
    assert body[truth["right lung"] | truth["left lung"]].all()
    assert not body[:, 58:].any()


@pytest.mark.parametrize("outside", [False, True])
def test_bone_is_compact_bone_and_its_marrow(outside):
    array, _ = chest()
    spine = ellipsoid((10, 48, 45), (100, 6, 6))
    array[spine] = 500
    array[ellipsoid((10, 48, 45), (100, 1.5, 1.5))] = 60
    array[8:10, 40, 50] = 900
    if outside:
        array[:, 58:, 10:80] = 900
    body = array > -400
    body[:, 58:] = False
    bone = label_bone(array, SPACING, body)
    assert dice(bone, spine) > 0.98
    assert not bone[8:10, 40, 50].any(), "a small calcification is not bone"


def test_rules_leave_given_labels_as_they_are():
    array, truth = chest()
    lesion = ellipsoid((10, 30, 25), (3, 4, 4))
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1])
    given = Scan(array=array, affine=affine, labels=lesion.astype(np.int16), targets={"lung lesion": 1})
    scan = label_by_rule(given, ["lungs", "bone"])
    assert set(scan.targets) == {"lung lesion", *LUNGS, "bone", BODY}
    np.testing.assert_array_equal(scan.mask("lung lesion"), lesion)
    assert dice(scan.mask("left lung"), truth["left lung"]) > 0.97
    assert dice(scan.mask("right lung"), truth["right lung"] & ~lesion) > 0.97
    assert dice(scan.mask(BODY), ellipsoid((10, 30, 45), (100, 27, 42))) > 0.99
