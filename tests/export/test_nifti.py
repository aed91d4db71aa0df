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
        assert np.abs(back.affine - affine).max() <= 1e-6
        assert back.size == size
        assert (back.array[0] == mask).all()
        assert nib.load(tmp_path / name).header["sform_code"] == 1


def test_affines_of_nifti_files_are_written_as_nifti_1(tmp_path):
    image = oriented_volume("LPS")
    save_masks(
        image, grounded("A mass.", mass={"mask": block_mask(image.size, (1, 1, 1, 3, 3, 3))}), tmp_path
    )
    assert isinstance(nib.load(tmp_path / "mask_01.nii.gz"), nib.Nifti1Image)


def test_nifti_1_can_be_asked_for_and_the_index_keeps_the_exact_affine(tmp_path):
    image = MedicalImage(np.zeros((1, 4, 5, 6), dtype=np.int16), _random_affine(0), oriented=True)
    study = grounded("A mass.", mass={"mask": block_mask(image.size, (1, 1, 1, 3, 3, 3))})
    index = save_masks(image, study, tmp_path, nifti1=True)
    for name in ("mask_01.nii.gz", "labels.nii.gz"):
        written = nib.load(tmp_path / name)
        assert type(written) is nib.Nifti1Image
        assert np.abs(written.affine - image.affine).max() < 1e-4
    assert json.loads(index.read_text("utf-8"))["grid"]["affine_xyz_to_ras_mm"] == image.affine.tolist()


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


def test_the_index_holds_spans_volumes_and_boxes_in_voxels_and_mm(tmp_path):
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
