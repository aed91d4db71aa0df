from pathlib import Path

import nibabel as nib
import numpy as np

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    centre_mm,
    image_of,
    masks_of,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

SCAN = Phantom(values=(1, 2, 3), axcodes="RAS", spacing=(1.0, 1.0, 3.0))
STRUCTURES = {"left lung lower lobe": 1, "heart": 2, "thoracic vertebrae 5 (t5)": 3, "lung nodule": 1}
TARGETS = {"left lung lower lobe": 1, "heart": 2, "T5 vertebra": 3}
REPORT = [
    ("lung/lung/lung lower lobe/left lung lower lobe", "There is a nodule in the left lower lobe."),
    ("heart", "Heart and T5 are normal."),
    ("bone/vertebrae/thoracic vertebrae/thoracic vertebrae 5 (t5)", "Heart and T5 are normal."),
    ("", "No lymph node was seen."),
    ("lung/lung nodule", "A nodule of 5 mm."),
]
VOLUMES = ["train_1_a_1", "train_2_a_1", "train_3_b_1", "valid_1_a_1"]


def write_plain(path: Path, array: np.ndarray) -> Path:
    """As the authors store volumes: in RAS order with an identity for a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


@miniature(
    "radgenome-chestct",
    truncated={"dataset/train_preprocessed/train_2/train_2a/train_2_a_1.nii.gz": "train_2_a_1"},
)
def prepared(origin: Path) -> None:
    rows: dict[str, list[dict[str, str]]] = {"train": [], "valid": []}
    for volume in VOLUMES:
        part, number, letter, _ = volume.split("_")
        folder = origin / f"dataset/{part}_preprocessed/{part}_{number}/{part}_{number}{letter}"
        write_plain(folder / f"{volume}.nii.gz", SCAN.image())
        for name, value in STRUCTURES.items():
            mask = (SCAN.labels() == value).astype(np.uint8)
            if volume != "train_3_b_1":
                write_plain(origin / f"dataset/{part}_anatomy_mask/seg_{volume}/{name}.nii.gz", mask)
        rows[part] += [{"Volumename": f"{volume}.nii.gz", "Anatomy": a, "Sentence": s} for a, s in REPORT]
    write_table(origin / "dataset/radgenome_files/train_region_report.csv", rows["train"])
    write_table(origin / "dataset/radgenome_files/validation_region_report.csv", rows["valid"])


def test_sentences_are_grounded_in_the_finest_structure_they_name(prepared: Prepared):
    row = prepared.rows["train_1_a_1"]
    assert row["report"] == (
        "Findings: <p>There is a nodule in the left lower lobe</p>. <p>Heart and T5 are normal</p>. "
        "No lymph node was seen. A nodule of 5 mm."
    )
    assert [phrase["targets"] for phrase in row["phrases"]] == [
        ["left lung lower lobe"],
        ["T5 vertebra", "heart"],
    ]


def test_masks_lie_on_the_grid_of_the_volume_with_its_true_spacing(prepared: Prepared):
    row = prepared.rows["train_1_a_1"]
    array, affine = image_of(row)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), SCAN.spacing)
    for one, other in (("heart", "left lung lower lobe"), ("T5 vertebra", "heart")):
        apart = SCAN.centre_mm(TARGETS[one]) - SCAN.centre_mm(TARGETS[other])
        np.testing.assert_allclose(centre_mm(row, one) - centre_mm(row, other), apart)
    for target, value in TARGETS.items():
        (mask,) = masks_of(row, target)
        assert mask.shape == array.shape
        assert mask.sum() * np.prod(SCAN.spacing) == SCAN.volume_mm3(value)
        assert array[mask].min() > np.median(array[array > 0])  # structures are brighter than the body


def test_the_validation_part_is_the_test_split_of_ct_rate(prepared: Prepared):
    assert prepared.split_of == {"train_1_a_1": "train", "valid_1_a_1": "test"}
    assert prepared.rows["valid_1_a_1"]["patient"] == "ct-rate:valid_1"


def test_a_volume_without_masks_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["train_3_b_1"]
