import numpy as np
import pydicom
import pytest
import torch

from tests.fixtures.dicom_files import PATIENT, SERIES, dicom, enhanced, plane, write_series
from vividmed.errors import VividMedError
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.reading import read_image

VOLUME = np.random.default_rng(0).integers(0, 2000, (6, 10, 8)).astype(np.uint16)
SLICE = VOLUME[0]


def save(dataset, path):
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_stored_values_become_modality_units(tmp_path):
    path = save(dicom(SLICE, RescaleSlope=1, RescaleIntercept=-1024, **plane(0)), tmp_path / "a.dcm")
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0, 0], SLICE.astype(int) - 1024)
    assert image.modality == "CT"
    fraction = save(dicom(SLICE, RescaleSlope=0.5, RescaleIntercept=0), tmp_path / "b.dcm")
    np.testing.assert_allclose(read_image(fraction).array[0, 0], SLICE * 0.5)


def test_a_file_without_extension_is_recognised(tmp_path):
    assert read_image(save(dicom(SLICE), tmp_path / "IM0001")).size == (1, 10, 8)


def test_monochrome1_is_inverted(tmp_path):
    bright = read_image(save(dicom(SLICE), tmp_path / "a.dcm")).array.astype(int)
    dark = read_image(save(dicom(SLICE, PhotometricInterpretation="MONOCHROME1"), tmp_path / "b.dcm")).array
    np.testing.assert_array_equal(dark, bright.max() + bright.min() - bright)


def test_monochrome1_does_not_overflow(tmp_path):
    pixels = np.array([[40000, 65535], [50000, 60000]], dtype=np.uint16)
    image = read_image(save(dicom(pixels, PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm"))
    assert image.array[0, 0].tolist() == [[65535, 40000], [55535, 45535]]


def test_the_display_window_is_applied_when_asked(tmp_path):
    path = save(
        dicom(SLICE, WindowCenter=500, WindowWidth=100, RescaleSlope=1, RescaleIntercept=0),
        tmp_path / "a.dcm",
    )
    windowed = read_image(path, voi_window=True).array
    below, above = windowed[0, 0][SLICE < 440], windowed[0, 0][SLICE > 560]
    assert len(set(below.tolist())) == 1
    assert len(set(above.tolist())) == 1
    assert len(np.unique(read_image(path).array)) > len(np.unique(windowed))


def test_colour_frames_are_read_as_colour(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (10, 8, 3), dtype=np.uint8)
    image = read_image(save(dicom(colour, Modality="US"), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(image.array[:, 0], colour.transpose(2, 0, 1))


def test_a_series_is_sorted_by_position(tmp_path):
    write_series(tmp_path / "series", VOLUME, RescaleSlope=1, RescaleIntercept=-1024)
    image = read_image(tmp_path / "series")
    np.testing.assert_array_equal(image.array[0], VOLUME.astype(int) - 1024)
    assert image.spacing == pytest.approx((2.5, 0.8, 0.7))
    # LPS (-10, -20, 0) is RAS (10, 20, 0); columns run to the patient's left, rows to the back.
    np.testing.assert_allclose(image.affine[:3, 3], [10, 20, 0])
    np.testing.assert_allclose(np.diag(image.affine)[:3], [-0.7, -0.8, 2.5])
    assert image.oriented


def test_a_series_and_its_nifti_give_the_same_model_input(tmp_path):
    import nibabel as nib

    write_series(tmp_path / "series", VOLUME)
    series = read_image(tmp_path / "series")
    nifti = nib.Nifti1Image(series.array[0].T.astype(np.int16), series.affine)
    processor = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=36)
    torch.testing.assert_close(processor.prepare(series).pixel_values, processor.prepare(nifti).pixel_values)


def test_enhanced_frames_form_an_oriented_volume(tmp_path):
    image = read_image(save(enhanced(VOLUME), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(image.array[0], VOLUME.astype(int) * 2 - 1000)
    assert image.oriented
    assert image.spacing == pytest.approx((3.0, 0.8, 0.7))


def test_frames_without_positions_are_a_stack_as_it_is(tmp_path):
    image = read_image(save(dicom(VOLUME, **plane(0)), tmp_path / "a.dcm"))
    assert image.size == (6, 10, 8)
    assert not image.oriented


def one_line_error(source, match: str) -> None:
    with pytest.raises(VividMedError, match=match) as caught:
        read_image(source)
    message = str(caught.value)
    assert "\n" not in message
    assert PATIENT not in message
    assert SERIES not in message


def test_a_missing_slice_is_named(tmp_path):
    write_series(tmp_path / "series", VOLUME, shuffled=False)
    (tmp_path / "series" / "IM0003").unlink()
    one_line_error(
        tmp_path / "series", r"series [0-9a-f]{8}\): a slice is missing between slices 3 and 4 of 5"
    )


def test_two_slices_at_one_position_are_refused(tmp_path):
    write_series(tmp_path / "series", VOLUME)
    save(dicom(SLICE, **plane(2.5)), tmp_path / "series" / "again")
    one_line_error(tmp_path / "series", "several slices lie at one position")


def test_mixed_series_are_refused_by_hash(tmp_path):
    write_series(tmp_path / "series", VOLUME)
    save(dicom(SLICE, SeriesInstanceUID="1.2.3", **plane(50)), tmp_path / "series" / "other")
    one_line_error(tmp_path / "series", r"mixes 2 series \([0-9a-f]{8}, [0-9a-f]{8}\)")


def test_slices_of_another_direction_or_size_are_refused(tmp_path):
    write_series(tmp_path / "series", VOLUME)
    save(dicom(SLICE, **plane(50, orientation=(0, 1, 0, 0, 0, -1))), tmp_path / "series" / "localizer")
    one_line_error(tmp_path / "series", "differ in direction or pixel spacing")
    save(dicom(SLICE[:5], **plane(50)), tmp_path / "series" / "localizer")
    one_line_error(tmp_path / "series", "differs in size")


def test_slices_without_position_are_refused(tmp_path):
    write_series(tmp_path / "series", VOLUME)
    save(dicom(SLICE), tmp_path / "series" / "nowhere")
    one_line_error(tmp_path / "series", "nowhere: has no position")


def test_a_folder_without_dicom_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    one_line_error(tmp_path, "contains no DICOM file")


def test_truncated_and_pictureless_files_are_named(tmp_path):
    path = save(dicom(SLICE), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-50])
    one_line_error(path, "a.dcm: not a readable DICOM image")
    path.write_bytes(b"\0" * 200)
    one_line_error(path, "a.dcm: not a readable DICOM file")
    dataset = dicom(SLICE)
    del dataset.PixelData
    one_line_error(save(dataset, tmp_path / "b.dcm"), "b.dcm: the DICOM file contains no image")


def test_nothing_about_the_patient_is_kept(tmp_path):
    image = read_image(save(dicom(SLICE, **plane(0)), tmp_path / "a.dcm"))
    assert PATIENT not in repr(image)
    assert set(vars(image)) == {"array", "affine", "modality", "source", "oriented", "files"}


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "JPEG2000.dcm"])
def test_real_files_are_read(name):
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not ship {name}")
    image = read_image(path)
    assert image.array.std() > 0
    prepared = VividMedImageProcessor().prepare(image)
    assert prepared.pixel_values.isfinite().all()
