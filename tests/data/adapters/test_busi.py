from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    image_of,
    masks_of,
    picture,
    write_picture,
)
from tests.fixtures.prepared_miniatures import miniature

SIZE = (48, 40)


def _mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


SMALL, LARGE, FURTHER = _mask(2, 3, 8, 12), _mask(10, 5, 30, 35), _mask(40, 20, 46, 30)


@miniature(
    "busi",
    truncated={"benign/benign (10).png": "benign (10)"},
)
def prepared(origin: Path) -> None:
    pixels = np.repeat(picture(SIZE)[..., None], 3, axis=-1)
    for key in ("normal/normal (1)", "benign/benign (1)", "benign/benign (10)", "malignant/malignant (7)"):
        write_picture(origin / f"{key}.png", pixels)
    write_picture(origin / "normal/normal (1)_mask.png", _mask(0, 0, 0, 0))
    write_picture(origin / "benign/benign (1)_mask.png", SMALL)
    write_picture(origin / "benign/benign (1)_mask_1.png", FURTHER)
    # Some masks are RGB with an alpha channel.
    opaque = np.full(SIZE, 255, np.uint8)
    write_picture(
        origin / "malignant/malignant (7)_mask.png", np.stack([LARGE, LARGE, LARGE, opaque], axis=-1)
    )
    write_picture(origin / "benign/benign (10)_mask.png", SMALL)


def test_a_benign_lesion_is_not_cancer(prepared: Prepared):
    row = prepared.rows["benign (1)"]
    assert set(row["targets"]) == {"breast tumor", "benign breast tumor"}
    assert row["absent"] == ["breast cancer"]


def test_every_mask_file_is_a_lesion_of_its_own(prepared: Prepared):
    first, second = masks_of(prepared.rows["benign (1)"], "benign breast tumor")
    np.testing.assert_array_equal(first[0], SMALL != 0)
    np.testing.assert_array_equal(second[0], FURTHER != 0)


def test_a_mask_in_colours_with_alpha_is_read(prepared: Prepared):
    row = prepared.rows["malignant (7)"]
    assert set(row["targets"]) == {"breast tumor", "breast cancer"}
    assert row["absent"] == ["benign breast tumor"]
    (mask,) = masks_of(row, "breast cancer")
    np.testing.assert_array_equal(mask[0], LARGE != 0)
    assert image_of(row)[0].shape[1:3] == SIZE


def test_a_normal_breast_has_no_lesion_of_any_kind(prepared: Prepared):
    row = prepared.rows["normal (1)"]
    assert row["targets"] == []
    assert set(row["absent"]) == {"breast tumor", "benign breast tumor", "breast cancer"}
