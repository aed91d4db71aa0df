import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_image

PICTURE = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (7, 5, 4)).astype(np.int16)
AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])


def one_line_error(source, match: str) -> None:
    with pytest.raises(VividMedError, match=match) as caught:
        read_image(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_pictures_keep_their_pixels(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    colour = np.stack([PICTURE, PICTURE + 60, PICTURE + 120], axis=-1)
    Image.fromarray(colour).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    image = read_image(path)
    assert image.array.shape == (3, 1, 6, 9)
    np.testing.assert_array_equal(image.array[:, 0], colour.transpose(2, 0, 1))
    assert not image.oriented
    assert image.source == str(path)


def test_a_jpeg_is_read_upright(tmp_path):
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.fromarray(PICTURE).save(path, exif=exif, quality=100)
    assert read_image(str(path)).size == (1, 9, 6)


def test_sixteen_bit_pictures_keep_their_depth(tmp_path):
    path = tmp_path / "image.png"
    deep = (PICTURE.astype(np.uint16) + 1) * 1000
    Image.fromarray(deep).save(path)
    image = read_image(path)
    assert image.array.dtype == np.uint16
    np.testing.assert_array_equal(image.array[0, 0], deep)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_picture_modes_become_grey_or_colour(mode, channels):
    assert read_image(Image.fromarray(PICTURE).convert(mode)).array.shape == (channels, 1, 6, 9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_keeps_its_grid_with_axes_reversed(tmp_path, suffix):
    path = tmp_path / f"volume{suffix}"
    nib.Nifti1Image(VOLUME, AFFINE).to_filename(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], VOLUME.transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert image.oriented


def test_nifti_scaling_is_applied(tmp_path):
    stored = nib.Nifti1Image(VOLUME, AFFINE)
    stored.header.set_slope_inter(2, -5)
    stored.to_filename(tmp_path / "v.nii")
    assert read_image(tmp_path / "v.nii").array.max() == pytest.approx(2 * float(VOLUME.max()) - 5, abs=2)


def test_a_nifti_image_in_memory_equals_its_file(tmp_path):
    stored = nib.Nifti1Image(VOLUME[..., None], AFFINE)  # a trailing axis of one is no fourth dimension
    np.testing.assert_array_equal(read_image(stored).array[0], VOLUME.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((6, 9), np.uint8), (1, 1, 6, 9)),
        (np.zeros((6, 9, 3), np.uint8), (3, 1, 6, 9)),
        (np.zeros((6, 9, 4), np.uint8), (3, 1, 6, 9)),
        (np.zeros((5, 6, 9), np.float32), (1, 5, 6, 9)),
        (np.zeros((3, 5, 6, 9), np.int16), (3, 5, 6, 9)),
        (torch.zeros(3, 6, 9), (3, 1, 6, 9)),
        (torch.zeros(1, 6, 9), (1, 1, 6, 9)),
        (torch.zeros(5, 6, 9, dtype=torch.bfloat16), (1, 5, 6, 9)),
    ],
)
def test_arrays_and_tensors_are_understood_by_shape(array, shape):
    image = read_image(array)
    assert image.array.shape == shape
    assert not image.oriented


def test_a_medical_image_passes_through():
    image = MedicalImage(np.zeros((1, 2, 3, 4)), np.eye(4))
    assert read_image(image) is image


def test_missing_empty_and_unknown_files_are_named(tmp_path):
    one_line_error(tmp_path / "none.png", "none.png: no such file")
    (tmp_path / "empty.nii.gz").touch()
    one_line_error(tmp_path / "empty.nii.gz", "empty.nii.gz: the file is empty")
    (tmp_path / "notes.txt").write_text("hello" * 50)
    one_line_error(tmp_path / "notes.txt", "notes.txt: unknown file type")
    one_line_error(3, "cannot read an image from a int")
    one_line_error(b"bytes", "cannot read an image from a bytes")


def test_truncated_files_are_named(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (200, 200), dtype=np.uint8)
    files = {"a.png": None, "a.jpg": None, "v.nii": None, "v.nii.gz": None}
    for name in files:
        path = tmp_path / name
        if ".nii" in name:
            nib.Nifti1Image(noise[..., None].repeat(4, -1), np.eye(4)).to_filename(path)
        else:
            Image.fromarray(noise).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        one_line_error(path, f"{name}: not a readable")
        path.write_bytes(b"\0" * 400)
        one_line_error(path, f"{name}: not a readable")


def test_a_nifti_with_a_wrong_checksum_is_named(tmp_path):
    path = tmp_path / "v.nii.gz"
    nib.Nifti1Image(VOLUME, AFFINE).to_filename(path)
    content = bytearray(path.read_bytes())
    content[-8:-4] = bytes(4)
    path.write_bytes(content)
    one_line_error(path, "v.nii.gz: not a readable NIfTI file")


def test_several_volumes_or_pictures_in_a_file_are_refused(tmp_path):
    nib.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)).to_filename(tmp_path / "four.nii.gz")
    one_line_error(
        tmp_path / "four.nii.gz", r"four.nii.gz: NIfTI of shape \(4, 4, 4, 2\) is not one 3D volume"
    )
    frames = [Image.fromarray(PICTURE), Image.fromarray(PICTURE + 1)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    one_line_error(tmp_path / "two.tif", "two.tif: contains 2 2D images")


def test_images_of_wrong_form_are_refused():
    one_line_error(np.zeros((2, 4, 4, 4)), "not \\(C, D, H, W\\) with 1 or 3 channels")
    one_line_error(np.zeros((0, 5)), "empty")
    one_line_error(np.zeros((4, 4), dtype=bool), "type bool are not intensities")
    one_line_error(np.zeros(4), "not \\(C, D, H, W\\)")
    with pytest.raises(VividMedError, match="affine"):
        MedicalImage(np.zeros((1, 2, 3, 4)), np.zeros((4, 4)))


def test_a_gzip_that_is_not_nifti_is_named(tmp_path):
    with gzip.open(tmp_path / "v.nii.gz", "wb") as file:
        file.write(b"not a volume" * 100)
    one_line_error(tmp_path / "v.nii.gz", "v.nii.gz: not a readable NIfTI file")
