import json
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    centre_mm,
    masks_of,
    volume_mm3,
)
from tests.fixtures.prepared_miniatures import miniature

SCAN = Phantom(values=(1, 2, 3), axcodes="LPS", spacing=(1.5, 1.5, 3.0))
NODULE, EFFUSION, OPACITY = "lung nodule #1", "lesion #2", "ground-glass opacity #3"
FINDINGS = {
    "0": "A 5 mm nodule in the right lower lobe",
    "1": "Pleural effusion on the left.",
    "2": "Ground-glass area",
}
CATEGORIES = {"0": "2d", "1": "2e", "2": "2c"}
SETS = {
    "train": ["train_1_a_1", "train_2_a_1", "train_3_a_1"],
    "val": ["train_4_b_2", "valid_5_a_1"],
    "test": ["train_6_a_1"],
}


def write_masks(path: Path, *values: int) -> None:
    """Masks along the first axis, with the axes of the stored volume (left, posterior, superior)."""
    labels = SCAN.labels()[::-1, ::-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(np.stack([labels == value for value in values]).astype(np.uint8), np.eye(4)), path
    )


@miniature(
    "rexgroundingct",
    truncated={"ReXGroundingCT/segmentations/train_3_a_1.nii.gz": "train_3_a_1"},
    also_failing=("train_2_a_1",),
)
def prepared(origin: Path) -> None:
    listed = {}
    for name, volumes in SETS.items():
        listed[name] = [
            {"name": f"{v}.nii.gz", "findings": FINDINGS, "categories": CATEGORIES, "pixels": {}}
            for v in volumes
        ]
        for volume in volumes:
            part, number, letter, _ = volume.split("_")
            folder = origin / f"dataset/{part}_fixed/{part}_{number}/{part}_{number}_{letter}"
            SCAN.write_image(folder / f"{volume}.nii.gz")
            if name != "test":
                write_masks(origin / f"ReXGroundingCT/segmentations/{volume}.nii.gz", 1, 2, 3)
    write_masks(origin / "ReXGroundingCT/segmentations/train_2_a_1.nii.gz", 1, 2)  # one too few
    listed["val"][1]["findings"] = {"0": "A 5 mm nodule"}
    del listed["val"][1]["categories"]
    (origin / "ReXGroundingCT/dataset.json").write_text(json.dumps(listed))


def test_every_finding_is_a_phrase_with_its_own_mask_at_its_place(prepared: Prepared):
    row = prepared.rows["train_1_a_1"]
    assert row["report"] == (
        "Findings: <p>A 5 mm nodule in the right lower lobe</p>. <p>Pleural effusion on the left</p>. "
        "<p>Ground-glass area</p>."
    )
    assert [phrase["targets"] for phrase in row["phrases"]] == [[NODULE], [EFFUSION], [OPACITY]]
    for value, target in ((1, NODULE), (2, EFFUSION), (3, OPACITY)):
        assert len(masks_of(row, target)) == 1
        np.testing.assert_allclose(centre_mm(row, target), SCAN.centre_mm(value), atol=1e-3)
        np.testing.assert_allclose(volume_mm3(row, target), SCAN.volume_mm3(value), rtol=1e-4)


def test_a_finding_without_category_is_an_abnormality(prepared: Prepared):
    row = prepared.rows["valid_5_a_1"]
    assert [phrase["targets"] for phrase in row["phrases"]] == [["lesion #1"]]


def test_held_out_patients_are_those_that_ct_rate_holds_out_too(prepared: Prepared):
    assert prepared.split_of == {"train_1_a_1": "train", "train_4_b_2": "validation", "valid_5_a_1": "test"}
    assert prepared.rows["train_4_b_2"]["patient"] == "ct-rate:train_4"


def test_withheld_masks_are_left_out_and_wrong_ones_fail(prepared: Prepared):
    assert list(prepared.result.left_out) == ["train_6_a_1"]
    assert "none for finding 2" in prepared.result.failed["train_2_a_1"]
