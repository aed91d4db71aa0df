"""What a user names as input becomes single scans."""

import os

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.fixtures.dicom_files import write_series
from vividmed import VividMedError, read_image
from vividmed.export.measurements import measure
from vividmed.inference.scans import find_scans
from vividmed.processing.medical_image import MedicalImage


@pytest.fixture
def folder(tmp_path):
    nib.Nifti1Image(np.zeros((4, 4, 4), dtype=np.int16), np.eye(4)).to_filename(tmp_path / "ct.nii.gz")
    (tmp_path / "more").mkdir()
    for name in ("ct.png", "more/chest x.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    write_series(tmp_path / "series", np.zeros((3, 4, 4), dtype=np.int16))
    (tmp_path / "notes.md").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def names(inputs):
    return [scan.name for scan in find_scans(inputs)]


def test_a_folder_stands_for_its_images_and_series(folder):
    assert names([folder]) == ["ct", "ct-2", "chest_x", "series"]


def test_a_folder_that_contains_itself_by_a_link_is_entered_once(folder):
    (folder / "more" / "again").symlink_to(folder)
    assert names([folder]) == ["ct", "ct-2", "chest_x", "series"]


def test_results_in_a_folder_of_scans_are_not_scans(folder):
    results = folder / "results"
    (results / "ct").mkdir(parents=True)
    Image.new("L", (8, 8)).save(results / "ct" / "overlay.png")
    for inputs in ([folder], [str(folder / "*")]):
        scans = find_scans(inputs, results=results)
        assert {scan.name for scan in scans} == {"ct", "ct-2", "chest_x", "series", *scan_of_text(inputs)}


def scan_of_text(inputs):
    """A glob names every file, also those that are no scans."""
    return {"notes"} if "*" in str(inputs[0]) else set()


def test_radiographs_of_a_folder_are_single_scans_and_other_scans_are_not_forgotten(folder):
    write_series(folder / "rays", np.zeros((1, 4, 4), dtype=np.int16))
    (ray,) = (folder / "rays").iterdir()
    ray.rename(folder / "chest.dcm")
    (folder / "rays").rmdir()
    assert names([folder]) == ["chest", "ct", "ct-2", "chest_x", "series"]
    other = pydicom.dcmread(folder / "chest.dcm")
    other.SeriesInstanceUID = "1.2.3.4.5"
    other.save_as(folder / "hand.dcm")
    assert names([folder]) == ["chest", "ct", "ct-2", "hand", "chest_x", "series"]
    (folder / "DICOMDIR").write_bytes((folder / "chest.dcm").read_bytes())
    assert len(names([folder])) == 6
    other.save_as(folder / "again.dcm")
    with pytest.raises(VividMedError, match="a DICOM series next to other scans"):
        names([folder])


def test_globs_files_and_folders_are_named_once_each(folder):
    given = [folder / "ct.png", str(folder / "*.png"), folder / "series", str(folder / "**" / "*.jpg")]
    assert names(given) == ["ct", "series", "chest_x"]


@pytest.mark.parametrize(
    "content",
    [
        "ct.nii.gz\nmore/chest x.jpg\n",
        "id,path\n1,ct.nii.gz\n2,more/chest x.jpg\n",
        "\ufeffimage\nct.nii.gz\nmore\n",
        "id;Path\r\n1;ct.nii.gz\r\n2;more/chest x.jpg\r\n",
        "path\tnote\nct.nii.gz\t1,5\nmore\t\n",
    ],
)
def test_lists_name_paths_relative_to_themselves(folder, content):
    (folder / "list.csv").write_text(content, encoding="utf-8")
    assert names([folder / "list.csv"]) == ["ct", "chest_x"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent.nii.gz", "no such file"),
        ("*.mha", "no image found"),
        ("empty", "no image found"),
        ("bad.csv", "line 2: no such file"),
        ("latin.csv", "not a readable list"),
        ("itself.csv", "names itself"),
        ("other.txt", "names itself"),
        ("pipe", "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_found_is_one_clear_error(folder, given, message):
    (folder / "empty").mkdir()
    (folder / "bad.csv").write_text("path\nabsent.png\n")
    (folder / "itself.csv").write_text("path\nct.png\nother.txt\n")
    (folder / "other.txt").write_text("itself.csv\n")
    os.mkfifo(folder / "pipe")
    (folder / "latin.csv").write_bytes("path\nM\u00fcller.png\n".encode("latin-1"))
    with pytest.raises(VividMedError, match=message):
        find_scans([folder / given])


def box_image(spacing, size=(6, 40, 40), modality="CT"):
    z, y, x = spacing
    return MedicalImage(
        np.full((1, *size), 50, dtype=np.int16), np.diag([-x, -y, z, 1.0]), modality=modality, oriented=True
    )


def test_a_mask_is_measured_in_millimetres():
    image = box_image((5.0, 0.5, 0.5))
    mask = np.zeros(image.size, dtype=bool)
    mask[1:3, 4:10, 3:33] = True
    measured = measure(image, mask)
    assert measured.volume_ml == pytest.approx(2 * 6 * 30 * 5 * 0.25 / 1000)
    # The diagonal of a rectangle of 29 x 5 pixel steps, plus one pixel.
    assert measured.longest_diameter_mm == pytest.approx(np.hypot(29, 5) * 0.5 + 0.5)
    assert measured.short_diameter_mm == pytest.approx(2 * 29 * 5 / np.hypot(29, 5) * 0.5 + 0.5)
    assert measured.mean_hu == 50


@pytest.mark.parametrize("shape", ["point", "line"])
def test_masks_without_area_are_measured_too(shape):
    image = box_image((1.0, 1.0, 1.0))
    mask = np.zeros(image.size, dtype=bool)
    mask[2, 5, 5 : 6 if shape == "point" else 15] = True
    measured = measure(image, mask)
    assert measured.longest_diameter_mm == (1 if shape == "point" else 10)
    assert measured.short_diameter_mm == 1


def test_values_that_are_not_hounsfield_units_are_not_averaged():
    image = box_image((1.0, 1.0, 1.0), modality="MR")
    assert measure(image, np.ones(image.size, dtype=bool)).mean_hu is None


def test_an_image_of_unknown_spacing_is_not_measured():
    image = read_image(np.zeros((1, 8, 8), dtype=np.uint8))
    assert measure(image, np.ones(image.size, dtype=bool)) is None
