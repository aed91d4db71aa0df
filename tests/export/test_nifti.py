import itertools
import json

import nibabel as nib
import numpy as np
import pytest

from tests.fixtures.studies import block_mask, grounded, oriented_volume, picture
from vividmed.export import save_masks
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_image


def _random_affine(seed: int) -> np.ndarray:
    """Oblique, with the double precision of DICOM and offsets as of scanners."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.3, 6, size=3)
    affine[:3, 3] = rng.uniform(-1500, 1500, size=3)
    return affine


@pytest.mark.parametrize("seed", range(8))
def test_masks_keep_grid_and_affine(seed, tmp_path):
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(2, 12, size=3))
    affine = _random_affine(seed)
    affine = affine.astype(np.float32).astype(np.float64) if seed % 2 else affine
    image = MedicalImage(np.zeros((1, *size), dtype=np.int16), affine, oriented=True)
    mask = rng.random(size) > 0.5
    mask.flat[0] = True

    save_masks(image, grounded("A mass.", mass={"mask": mask}), tmp_path)

    for name in ("mask_01.nii.gz", "labels.nii.gz"):
        back = read_image(tmp_path / name)
        assert np.abs(back.affine - affine).max() <= (1e-6 if seed % 2 else 1e-4)
        assert back.size == size
        assert (back.array[0] == mask).all()
        assert nib.load(tmp_path / name).header["sform_code"] == 1


def open_with_itk(path) -> tuple[np.ndarray, np.ndarray]:
    """Array (z, y, x) and RAS+ affine, as software built on ITK sees them."""
    itk = pytest.importorskip("SimpleITK")
    image = itk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return itk.GetArrayFromImage(image), affine


ALL_ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("oblique", [False, True])
def test_masks_open_in_itk_on_the_grid_of_their_image(oblique, tmp_path):
    for number, (order, signs) in enumerate(ALL_ORIENTATIONS[:: 5 if oblique else 1]):
        affine = np.zeros((4, 4))
        affine[3] = [0, 0, 0, 1]
        affine[list(order), range(3)] = np.array(signs) * (0.7, 0.8, 2.5)
        affine[:3, 3] = [10.123456789, -200.5, 1300.1]
        if oblique:
            rotation = _random_affine(number)[:3, :3]
            affine[:3, :3] = rotation / np.linalg.norm(rotation, axis=0) @ affine[:3, :3]
        image = MedicalImage(np.zeros((1, 4, 5, 6), np.int16), affine, oriented=True)
        mask = block_mask(image.size, (1, 0, 2, 3, 4, 5))
        save_masks(image, grounded("A mass.", mass={"mask": mask}), tmp_path / str(number))
        for name in ("mask_01.nii.gz", "labels.nii.gz"):
            path = tmp_path / str(number) / name
            array, seen = open_with_itk(path)
            np.testing.assert_array_equal(array, mask)
            np.testing.assert_allclose(seen, affine, atol=1e-3)
            header = nib.load(path).header
            assert type(header) is nib.Nifti1Header
            assert header["qform_code"] == header["sform_code"] == 1


def test_masks_of_a_sheared_volume_open_in_itk_too(tmp_path):
    affine = np.diag([0.7, 0.8, 2.5, 1])
    affine[1, 2] = 0.5
    image = MedicalImage(np.zeros((1, 4, 5, 6), np.int16), affine, oriented=True)
    index = save_masks(
        image, grounded("A mass.", mass={"mask": block_mask(image.size, (1, 0, 2, 3, 4, 5))}), tmp_path
    )
    open_with_itk(tmp_path / "mask_01.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "mask_01.nii.gz").affine, affine, atol=1e-6)
    assert json.loads(index.read_text("utf-8"))["grid"]["affine_xyz_to_ras_mm"] == affine.tolist()


def test_only_an_axis_too_long_for_nifti_1_gives_nifti_2(tmp_path):
    image = MedicalImage(np.zeros((1, 1, 2, 40_000), np.int16), np.eye(4), oriented=True)
    mask = block_mask(image.size, (0, 0, 0, 1, 1, 9))
    save_masks(image, grounded("A mass.", mass={"mask": mask}), tmp_path)
    assert type(nib.load(tmp_path / "mask_01.nii.gz")) is nib.Nifti2Image


def test_the_label_map_shows_the_smaller_of_overlapping_masks(tmp_path):
    image = oriented_volume("LPS")
    nodule, lung = block_mask(image.size, (4, 4, 4, 6, 6, 6)), block_mask(image.size, (2, 2, 2, 12, 20, 18))
    text = "A nodule in the lung, no mass."
    save_masks(image, grounded(text, nodule={"mask": nodule}, lung={"mask": lung}, mass={}), tmp_path)

    labels = read_image(tmp_path / "labels.nii.gz").array[0]
    assert (labels[nodule] == 1).all()
    assert (labels[lung & ~nodule] == 2).all()
    assert (labels[~lung] == 0).all()
    assert (read_image(tmp_path / "mask_02.nii.gz").array[0] == lung).all()


def test_the_index_contains_spans_volumes_and_boxes_in_voxels_and_mm(tmp_path):
    image = oriented_volume("RAS")
    box = np.array([[2.0, 3.0, 4.0, 5.0, 8.0, 10.0]])
    mask = block_mask(image.size, (0, 0, 0, 2, 2, 2))
    study = grounded(
        "Cyst and nodule, no mass.",
        Cyst={"mask": mask},
        nodule={"boxes": box, "scores": np.array([0.75])},
        mass={},
    )

    index = json.loads(save_masks(image, study, tmp_path).read_text(encoding="utf-8"))

    assert index["text"] == study.text
    assert np.array_equal(index["grid"]["affine_xyz_to_ras_mm"], image.affine)
    assert index["grid"]["size"] == list(image.size)
    cyst, nodule, mass = index["phrases"]
    assert (cyst["mask"], cyst["voxels"], cyst["boxes"]) == ("mask_01.nii.gz", 8, [])
    assert cyst["volume_ml"] == pytest.approx(8 * 2.5 / 1000)
    assert (mass["mask"], mass["boxes"]) == (None, [])
    assert index["text"][nodule["start"] : nodule["end"]] == "nodule"
    (entry,) = nodule["boxes"]
    assert (entry["voxels_zyx"], entry["score"]) == (box[0].tolist(), 0.75)
    low = image.affine[:3, :3] @ [3.5, 2.5, 1.5] + image.affine[:3, 3]
    high = image.affine[:3, :3] @ [9.5, 7.5, 4.5] + image.affine[:3, 3]
    assert entry["mm_ras"] == pytest.approx([*low, *high])


def test_boxes_without_masks_write_an_index_only(tmp_path):
    save_masks(picture(), grounded("A mass.", mass={"boxes": np.array([[0, 1, 1, 1, 9, 9]])}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["grounding.json"]
    index = json.loads((tmp_path / "grounding.json").read_text(encoding="utf-8"))
    assert index["labels"] is None
    assert index["phrases"][0]["boxes"][0]["score"] is None


def test_nothing_of_the_source_is_written(tmp_path):
    image = oriented_volume("LPS")
    save_masks(
        image, grounded("A mass.", mass={"mask": block_mask(image.size, (1, 1, 1, 3, 3, 3))}), tmp_path
    )
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.glob("*.json"))
    header = nib.load(tmp_path / "mask_01.nii.gz").header
    assert header["descrip"].item() == header["aux_file"].item() == header["intent_name"].item() == b""
