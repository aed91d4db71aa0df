"""NIfTI headers: units, sform and qform, versions, and what damaged ones end in."""

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vividmed.errors import VividMedError
from vividmed.processing.reading import read_encoded, read_image

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (7, 5, 4)).astype(np.int16)
EXAMPLES = Path(nib.__file__).parent / "tests" / "data"


@pytest.fixture
def log(caplog):
    logger = logging.getLogger("vividmed.processing.nifti")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_version_and_byte_order_is_read(tmp_path, version, endianness, suffix):
    path = tmp_path / f"v{suffix}"
    header = version.header_class(endianness=endianness)
    header.set_data_dtype(np.int16)
    version(VOLUME, AFFINE, header).to_filename(path)
    for image in (read_image(path), read_encoded(path.read_bytes(), "row")):
        np.testing.assert_array_equal(image.array[0], VOLUME.T)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)]
)
def test_units_of_length_are_honoured(tmp_path, unit, millimetres):
    image = nib.Nifti1Image(VOLUME, AFFINE)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "v.nii.gz")
    expected = AFFINE.copy()
    expected[:3] *= millimetres
    np.testing.assert_allclose(read_image(tmp_path / "v.nii.gz").affine, expected, rtol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.001, 5.0])
def test_a_disagreement_of_sform_and_qform_is_warned_about(tmp_path, log, shift):
    path = tmp_path / f"shift{shift}.nii"
    image = nib.Nifti1Image(VOLUME, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += shift
    image.set_qform(moved, 1)
    image.set_sform(AFFINE, 1)
    image.to_filename(path)
    np.testing.assert_allclose(read_image(path).affine, AFFINE, atol=1e-6)
    assert ("disagree by up to 5.00 mm" in log.text) == (shift == 5)


@pytest.mark.parametrize("name", ["anatomical.nii", "example_nifti2.nii.gz", "reoriented_anat_moved.nii"])
def test_real_files_are_read_on_their_own_grid(name):
    path = EXAMPLES / name
    if not path.exists():
        pytest.skip(f"nibabel does not ship {name}")
    stored = nib.load(path)
    if stored.ndim > 3 and stored.shape[3] > 1:
        with pytest.raises(VividMedError, match="not one 3D volume"):
            read_image(path)
        return
    np.testing.assert_array_equal(
        read_image(path).array[0].T, np.asarray(stored.dataobj).reshape(stored.shape[:3])
    )


def damaged_header(field: str, value) -> bytes:
    content = bytearray(nib.Nifti1Image(VOLUME, AFFINE).to_bytes())
    header = np.frombuffer(content, dtype=nib.Nifti1Header.template_dtype, count=1)
    header = header.copy()
    header[field] = value
    content[: header.nbytes] = header.tobytes()
    return bytes(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("datatype", 999),
        ("dim", [3, 30000, 30000, 30000, 1, 1, 1, 1]),
        ("dim", [3, 7, -5, 4, 1, 1, 1, 1]),
        ("dim", [0] * 8),
        ("dim", [3, 7, 5, 400, 1, 1, 1, 1]),
        ("vox_offset", np.nan),
        ("vox_offset", 1e30),
        ("vox_offset", -4),
        ("srow_x", [np.nan] * 4),
        ("srow_x", [0] * 4),
        ("magic", b"xyz"),
        ("sizeof_hdr", 12),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_headers_end_in_one_line(tmp_path, field, value, compressed):
    content = damaged_header(field, value)
    path = tmp_path / ("v.nii.gz" if compressed else "v.nii")
    path.write_bytes(gzip.compress(content) if compressed else content)
    for read in (lambda: read_image(path), lambda: read_encoded(path.read_bytes(), "v.nii of row 3")):
        with pytest.raises(VividMedError, match=r"v\.nii") as caught:
            read()
        assert "\n" not in str(caught.value)
