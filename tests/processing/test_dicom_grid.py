"""Slices form a volume only if direction, spacing and position of every one fit the same grid."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from tests.fixtures.dicom_files import dicom, enhanced, plane, write_series
from tests.processing.test_dicom import VOLUME, one_line_error, save
from vividmed.processing.reading import read_image


def change(folder, change_file, name="IM0003"):
    dataset = pydicom.dcmread(folder / name)
    change_file(dataset)
    dataset.save_as(folder / name)


def moved(*offset):
    def change_file(dataset):
        dataset.ImagePositionPatient = [
            a + b for a, b in zip(dataset.ImagePositionPatient, offset, strict=True)
        ]

    return change_file


def set_field(**fields):
    def change_file(dataset):
        for keyword, value in fields.items():
            setattr(dataset, keyword, value)

    return change_file


@pytest.mark.parametrize(
    ("change_file", "problem"),
    [
        (moved(9, 0, 0), "do not lie on one regular grid"),
        (moved(0, -9, 0), "do not lie on one regular grid"),
        (moved(0, 0, 0.8), "do not lie on one regular grid"),
        (set_field(PixelSpacing=[0.8, 0.71]), "direction or pixel spacing"),
        (set_field(ImageOrientationPatient=[1, 0, 0, 0, 0.99, 0.141067]), "direction or pixel spacing"),
        (set_field(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two perpendicular unit vectors"),
        (set_field(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]), "not two perpendicular unit vectors"),
    ],
)
@pytest.mark.parametrize("name", ["IM0000", "IM0003", "IM0005"])
def test_a_slice_off_the_grid_is_refused(tmp_path, change_file, problem, name):
    write_series(tmp_path, VOLUME, shuffled=False)
    change(tmp_path, change_file, name)
    one_line_error(tmp_path, problem)


@pytest.mark.parametrize("offset", [(0.03, 0, 0), (0, 0.03, 0), (0, 0, 0.15)])
def test_rounded_positions_are_accepted(tmp_path, offset):
    write_series(tmp_path, VOLUME, shuffled=False)
    change(tmp_path, moved(*offset))
    assert read_image(tmp_path).size == VOLUME.shape


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path):
    write_series(tmp_path, VOLUME, shuffled=False)
    for index in range(len(VOLUME)):
        change(tmp_path, moved(0, 0.5 * index, 0), f"IM{index:04d}")
    np.testing.assert_allclose(read_image(tmp_path).affine[:3, 2], [0, -0.5, 2.5], atol=1e-9)


@pytest.mark.parametrize("frame", [0, 2, 5])
def test_frames_of_enhanced_files_must_fit_one_grid(tmp_path, frame):
    dataset = enhanced(VOLUME)
    position = dataset.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]
    position.ImagePositionPatient = [-1, -20, 3.0 * frame]
    one_line_error(save(dataset, tmp_path / "a.dcm"), "a.dcm: slices do not lie on one regular grid")
    del position.ImagePositionPatient
    one_line_error(save(dataset, tmp_path / "a.dcm"), f"frame {frame + 1} of 6 has no position")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", b"0,8\\0,7 "),
        ("PixelSpacing", b"0.8 "),
        ("ImagePositionPatient", b"-10\\-20 "),
        ("ImagePositionPatient", b"-10\\-20\\NaN "),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\one\\0 "),
        ("RescaleSlope", b"1,0 "),
        ("RescaleSlope", b"1\\1 "),
        ("RescaleIntercept", b"-1024\\0 "),
        ("RescaleIntercept", b"1e999 "),
        ("SliceThickness", b"2,5 "),
    ],
)
def test_malformed_numbers_are_named(tmp_path, keyword, value):
    fields = {"RescaleSlope": 1, "RescaleIntercept": -1024, "SliceThickness": 2, **plane(0)}
    dataset = dicom(VOLUME[0], **fields)
    tag = Tag(tag_for_keyword(keyword))
    dataset._dict[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    path = save(dataset, tmp_path / "a.dcm")
    one_line_error(path, f"a.dcm: DICOM field {keyword} is malformed")


@pytest.mark.parametrize("modality", ["SEG", "PR", "SR", "RTSTRUCT", "KO"])
def test_objects_that_accompany_a_series_are_left_aside(tmp_path, modality):
    write_series(tmp_path, VOLUME)
    other = dicom(VOLUME[0], Modality=modality, SeriesInstanceUID="1.2.3")
    if modality != "SEG":
        del other.PixelData, other.Rows, other.Columns
    save(other, tmp_path / "OTHER")
    assert read_image(tmp_path).size == VOLUME.shape
    if modality == "SEG":
        one_line_error(tmp_path / "OTHER", "OTHER: contains a DICOM segmentation, not an image")


def test_real_directories_and_reports_are_left_aside(tmp_path):
    write_series(tmp_path, VOLUME)
    for name in (
        "DICOMDIR-implicit",
        "reportsi.dcm",
        "rtplan.dcm",
        "rtstruct.dcm",
        "rtdose.dcm",
        "test-SR.dcm",
    ):
        path = pydicom.data.get_testdata_file(name, download=False)
        assert path is not None, name
        shutil.copy(path, tmp_path / name)
    assert read_image(tmp_path).size == VOLUME.shape
    for path in tmp_path.glob("IM*"):
        path.unlink()
    one_line_error(tmp_path, "only [0-9] other DICOM objects")


def test_a_slice_without_preamble_is_read(tmp_path):
    write_series(tmp_path, VOLUME, shuffled=False)
    for name, start in (("IM0000", 128 + 4), ("IM0005", None)):
        path = tmp_path / name
        if start is None:  # without the file's meta information too
            dataset = pydicom.dcmread(path)
            with path.open("wb") as file:
                pydicom.dcmwrite(file, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True)
        else:
            path.write_bytes(path.read_bytes()[start:])
    np.testing.assert_array_equal(read_image(tmp_path).array[0], VOLUME)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"<html>"])
@pytest.mark.parametrize("name", ["IM0000", "IM0006", "extra.dcm"])
def test_a_damaged_slice_is_an_error_and_not_dropped(tmp_path, content, name):
    write_series(tmp_path, VOLUME, shuffled=False)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("not a slice")
    one_line_error(tmp_path, f"{name}: not a DICOM file")


def test_an_image_object_without_pixels_is_an_error(tmp_path):
    write_series(tmp_path, VOLUME, shuffled=False)
    dataset = pydicom.dcmread(tmp_path / "IM0005")
    del dataset.PixelData
    dataset.save_as(tmp_path / "IM0005")
    one_line_error(tmp_path, "IM0005: the DICOM file contains no image")


def test_mosaics_are_refused(tmp_path):
    tiles = dicom(VOLUME[0], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], **plane(0))
    one_line_error(save(tiles, tmp_path / "a.dcm"), "a mosaic, which tiles the slices")
    save(dicom(VOLUME[1], ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], **plane(3)), tmp_path / "b.dcm")
    one_line_error(tmp_path, "a mosaic, which tiles the slices")
