from pathlib import Path

import numpy as np
from PIL import Image

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    image_of,
    masks_of,
)
from tests.fixtures.prepared_miniatures import miniature

BONES = ("sacrum", "left hip bone", "right hip bone")
FRAGMENTED = Phantom(values=(1, 2, 11, 20, 21, 30), sides=((11, 21), (20, 30)))
WHOLE = Phantom(values=(1, 21), axcodes="RAS", spacing=(0.8, 0.8, 0.8), seed=1)


@miniature(
    "pengwin-t1",
    truncated={"PENGWIN_CT_train_images_part2/100.mha": "100"},
)
def scans(origin: Path) -> None:
    for key, part, phantom in (("001", 1, FRAGMENTED), ("055", 2, WHOLE), ("100", 2, WHOLE)):
        phantom.write_image(origin / f"PENGWIN_CT_train_images_part{part}/{key}.mha")
        phantom.write_labels(origin / f"PENGWIN_CT_train_labels/{key}.mha")


def test_fragments_are_parts_of_one_bone(scans: Prepared):
    row = scans.rows["001"]
    assert_row_shows(row, FRAGMENTED, dict(zip(BONES, ((1, 2), (11, 20), (21, 30)), strict=True)))
    assert all(len(masks_of(row, bone)) == 1 for bone in BONES)


def test_a_bone_outside_the_scan_is_absent(scans: Prepared):
    assert_row_shows(scans.rows["055"], WHOLE, {"sacrum": 1, "right hip bone": 21}, ["left hip bone"])


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _transmission() -> np.ndarray:
    """(H, W) intensity behind a body with a dense block at rows 10 to 30, columns 20 to 25."""
    intensity = np.random.default_rng(0).uniform(0.5, 0.9, (48, 40)).astype(np.float32)
    intensity[10:30, 20:25] = 0.05
    return intensity


def _fragments() -> np.ndarray:
    """(H, W) words: two fragments of the sacrum, and the left hip bone over one of them, up to its last fragment."""
    words = np.zeros((48, 40), np.int32)
    words[10:20, 20:25] |= 1 << 1
    words[20:30, 20:25] |= 1 << 10
    words[15:40, 22:30] |= 1 << 20
    return words


@miniature(
    "pengwin-t2",
    truncated={"train/input/images/x-ray/001_0499.tif": "001_0499"},
    also_failing=("003_0000", "004_0000"),
)
def radiographs(origin: Path) -> None:
    train = origin / "train"
    for key in ("001_0000", "001_0499", "002_0000", "003_0000", "004_0000"):
        _save(train / f"input/images/x-ray/{key}.tif", _transmission())
        _save(train / f"output/images/x-ray/{key}.tif", _fragments())
    _save(train / "output/images/x-ray/002_0000.tif", np.full((48, 40), 1 << 30, np.int32))
    _save(train / "output/images/x-ray/003_0000.tif", _fragments().astype(np.uint8))
    _save(train / "output/images/x-ray/004_0000.tif", np.full((48, 40), -(1 << 31), np.int32))


def test_bones_that_overlap_in_projection_keep_all_their_pixels(radiographs: Prepared):
    row = radiographs.rows["001_0000"]
    words = _fragments()
    expected = {"sacrum": words & 0b11111111110 != 0, "left hip bone": words & (1 << 20) != 0}
    assert row["targets"] == list(expected)
    assert row["absent"] == ["right hip bone"]
    assert (expected["sacrum"] & expected["left hip bone"]).any()
    for bone, pixels in expected.items():
        (mask,) = masks_of(row, bone)
        np.testing.assert_array_equal(mask[0], pixels)


def test_the_highest_bit_is_the_last_fragment_of_the_right_hip_bone(radiographs: Prepared):
    row = radiographs.rows["002_0000"]
    assert (row["targets"], sorted(row["absent"])) == (["right hip bone"], ["left hip bone", "sacrum"])


def test_dense_bone_is_bright_as_in_a_radiograph(radiographs: Prepared):
    pixels = image_of(radiographs.rows["001_0000"])[0][0].astype(float)
    assert radiographs.rows["001_0000"]["modality"] == "X-ray"
    assert pixels[10:30, 20:25].min() > pixels[32:].max()


def test_radiographs_belong_to_the_patient_of_their_scan(radiographs: Prepared):
    assert radiographs.rows["002_0000"]["patient"] == "pengwin-t1:002"


def test_labels_of_another_type_and_bits_of_no_bone_fail(radiographs: Prepared):
    assert "32-bit" in radiographs.result.failed["003_0000"]
    assert "bits that belong to no bone" in radiographs.result.failed["004_0000"]
