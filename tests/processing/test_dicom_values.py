"""Stored values become what the standard says they stand for."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.fixtures.dicom_files import dicom, enhanced, plane, write_series
from tests.processing.test_dicom import SLICE, VOLUME, one_line_error, save
from vividmed.processing.reading import read_image


def lookup_table(first: int, values: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, 16]
    item.ModalityLUTType = "HU"
    item["LUTData"] = pydicom.DataElement("LUTData", "US", values)
    return item


def test_the_modality_lookup_table_replaces_slope_and_intercept(tmp_path):
    table = [7, 70, 700]
    path = save(dicom(SLICE, ModalityLUTSequence=[lookup_table(900, table)]), tmp_path / "a.dcm")
    expected = np.array(table)[(SLICE.astype(int) - 900).clip(0, 2)]
    np.testing.assert_array_equal(read_image(path).array[0, 0], expected)


def test_an_empty_lookup_table_is_refused(tmp_path):
    item = lookup_table(0, [1, 2])
    del item.LUTData
    one_line_error(
        save(dicom(SLICE, ModalityLUTSequence=[item]), tmp_path / "a.dcm"), "modality LUT is incomplete"
    )


def test_a_slope_of_zero_is_refused(tmp_path):
    path = save(dicom(SLICE, RescaleSlope=0, RescaleIntercept=5), tmp_path / "a.dcm")
    one_line_error(path, "RescaleSlope is 0")


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, -1990])
def test_padding_takes_the_lowest_value_of_the_image(tmp_path, photometric, limit):
    stored = np.arange(100, 180, dtype=np.int16).reshape(10, 8)
    padding = np.zeros_like(stored, dtype=bool)
    padding[:, :2] = True
    stored[padding] = -2000 if limit is None else -1995
    fields = {"PixelPaddingValue": -2000, "PhotometricInterpretation": photometric, "RescaleIntercept": -1000}
    if limit is not None:
        fields["PixelPaddingRangeLimit"] = limit
    array = read_image(save(dicom(stored, RescaleSlope=1, **fields), tmp_path / "a.dcm")).array[0, 0]
    content = stored[~padding].astype(int) - 1000
    assert (array[padding] == content.min()).all()
    if photometric == "MONOCHROME1":
        content = content.max() + content.min() - content
    np.testing.assert_array_equal(array[~padding], content)


def test_each_frame_of_an_enhanced_file_uses_its_own_window(tmp_path):
    dataset = enhanced(np.stack([SLICE, SLICE]))
    for frame, centre in zip(dataset.PerFrameFunctionalGroupsSequence, (0, 2000), strict=True):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = centre, 100
        frame.FrameVOILUTSequence = [window]
    image = read_image(save(dataset, tmp_path / "a.dcm"), voi_window=True).array[0]
    values = SLICE.astype(int) * 2 - 1000
    for array, centre in zip(image, (0, 2000), strict=True):
        assert len(np.unique(array[values < centre - 60])) == 1
        assert len(np.unique(array[values > centre + 60])) == 1
    assert len(np.unique(image[0][values > 1000])) == 1
    assert len(np.unique(image[1][values < 1000])) == 1


def test_a_monochrome1_volume_is_inverted_once(tmp_path):
    write_series(tmp_path / "bright", VOLUME)
    write_series(tmp_path / "dark", VOLUME, PhotometricInterpretation="MONOCHROME1")
    bright = read_image(tmp_path / "bright").array.astype(int)
    dark = read_image(tmp_path / "dark").array.astype(int)
    np.testing.assert_array_equal(dark, bright.max() + bright.min() - bright)
    first = sorted((tmp_path / "dark").iterdir())[0]
    changed = pydicom.dcmread(first)
    changed.PhotometricInterpretation = "MONOCHROME2"
    changed.save_as(first)
    one_line_error(tmp_path / "dark", "differs in PhotometricInterpretation")


def test_signed_monochrome1_does_not_overflow(tmp_path):
    pixels = np.array([[-30000, 30000], [0, 10]], dtype=np.int16)
    image = read_image(save(dicom(pixels, PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm"))
    assert image.array[0, 0].tolist() == [[30000, -30000], [0, -10]]


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_bigendian.dcm",
        "MR_small_padded.dcm",
        "image_dfl.dcm",
        "rtdose.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_real_files_of_all_sorts_are_read(name):
    assert read_image(pydicom.data.get_testdata_file(name, download=False)).array.std() > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ExplVR_BigEndNoMeta.dcm", "contains no image"),
        ("ExplVR_LitEndNoMeta.dcm", "contains no image"),
        ("MR_truncated.dcm", "not a readable DICOM image"),
        ("badVR.dcm", "NumberOfFrames is malformed"),
        ("meta_missing_tsyntax.dcm", "is empty"),
        ("rtstruct.dcm", "contains no image"),
    ],
)
def test_real_files_without_a_sound_image_are_refused_in_one_line(name, problem):
    one_line_error(pydicom.data.get_testdata_file(name, download=False), problem)


def test_a_placed_plane_keeps_its_thickness(tmp_path):
    path = save(dicom(SLICE, SliceThickness="5", **plane(3)), tmp_path / "a.dcm")
    assert read_image(path).spacing[0] == pytest.approx(5)
