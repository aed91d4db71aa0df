import gzip
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vividmed.data.batches.examples import read_images, to_example
from vividmed.errors import VividMedError

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)
VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)  # x, y, z
AFFINE = np.array([[-2.0, 0, 0, 5], [0, -3.0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])
MESSAGES = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "CT."}]


def png() -> bytes:
    buffer = BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def nifti() -> nib.Nifti1Image:
    return nib.Nifti1Image(VOXELS, AFFINE)


@pytest.mark.parametrize(
    "volume",
    [
        nifti(),
        {"bytes": nifti().to_bytes(), "path": None},
        {"bytes": gzip.compress(nifti().to_bytes(), mtime=0), "path": "v.nii.gz"},
    ],
)
@pytest.mark.parametrize("image", [Image.fromarray(PIXELS), {"bytes": png(), "path": None}])
def test_pictures_come_before_volumes_on_their_own_grids(image, volume):
    example = to_example({"images": [image], "volumes": [volume], "messages": MESSAGES, "id": "r"})
    picture, scan = example["images"]
    np.testing.assert_array_equal(picture.array, PIXELS[None, None])
    np.testing.assert_array_equal(scan.array, VOXELS.T[None])
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.spacing == (4.0, 3.0, 2.0)
    assert example["messages"] == MESSAGES


def test_an_encoded_image_may_be_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    row = {"images": [{"bytes": None, "path": str(tmp_path / "a.png")}], "volumes": []}
    np.testing.assert_array_equal(read_images(row)[0].array[0, 0], PIXELS)


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("images", b"no picture"),
        ("images", png()[:40]),
        ("volumes", b"\x1f\x8bbroken"),
        ("volumes", gzip.compress(nifti().to_bytes(), mtime=0)[:-30]),
        ("volumes", b"short"),
        ("volumes", None),
    ],
)
def test_a_damaged_image_is_named(column, content):
    good = {"images": Image.fromarray(PIXELS), "volumes": nifti()}
    row = {"images": [], "volumes": [], column: [good[column], {"bytes": content, "path": None}]}
    with pytest.raises(VividMedError, match=rf"^{column}\[1\]") as caught:
        read_images(row)
    assert "\n" not in str(caught.value)
