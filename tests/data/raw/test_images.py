"""Reading originals: damaged copies are reported, and the spacing of 2D images is kept where it can be trusted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.miniatures import Phantom, picture, write_channels, write_radiograph
from vividmed.data.raw.images import read_original
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_image

PHANTOM = Phantom(size=(40, 36, 24))


@pytest.mark.parametrize("read", [read_image, read_original, partial(read_original, channel=1)])
def test_no_flipped_bit_of_a_compressed_volume_is_read_as_a_voxel(
    tmp_path: Path, read: Callable[[Path], MedicalImage]
):
    path = tmp_path / "ct.nii.gz"
    if isinstance(read, partial):
        write_channels(path, [PHANTOM, PHANTOM])
    else:
        PHANTOM.write_image(path)
    content = path.read_bytes()
    sound = read(path).array
    assert sound.shape == (1, 24, 36, 40)
    generator = np.random.default_rng(0)
    reasons: list[str] = []
    for place, bit in zip(
        generator.integers(30, len(content), 60), generator.integers(0, 8, 60), strict=True
    ):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            # A few bits of the format say nothing.
            np.testing.assert_array_equal(read(path).array, sound, err_msg=f"byte {place}, bit {bit}")
        except VividMedError as error:
            reasons.append(str(error))
    assert len(reasons) >= 55
    assert all("ct.nii.gz" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [
        ({"PixelSpacing": [0.3, 0.2]}, (0.3, 0.2)),
        ({"ImagerPixelSpacing": [0.15, 0.14]}, (0.15, 0.14)),
        # What is corrected for magnification goes before what is measured on the detector.
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.15, 0.14]}, (0.3, 0.2)),
        ({"PixelSpacing": [0.0, 0.0]}, (1.0, 1.0)),
        ({}, (1.0, 1.0)),
    ],
)
def test_a_radiograph_has_the_spacing_of_its_file(
    tmp_path: Path, fields: dict[str, list[float]], spacing: tuple[float, float]
):
    path = write_radiograph(tmp_path / "cxr.dcm", picture().astype(np.uint16), **fields)
    image = read_original(path)
    assert image.spacing == pytest.approx((1.0, *spacing))
    assert not image.oriented


def test_the_print_resolution_of_a_picture_is_not_its_spacing(tmp_path: Path):
    path = tmp_path / "cxr.png"
    Image.fromarray(picture()).save(path, dpi=(300, 300))
    assert read_original(path).spacing == (1.0, 1.0, 1.0)
