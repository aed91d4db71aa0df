import json
from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import Phantom, Prepared, image_of, write_table
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.raw.finding_labels import CT_RATE_TARGETS

SCAN = Phantom(values=(1, 2), axcodes="LPS", spacing=(1.5, 1.5, 3.0))
FINDINGS = "Trachea is open.\n  A 5 mm nodule is seen in the right lung. "
VOLUMES = {  # volume: part, findings, impression, labels
    "train_1_a_1": ("train", FINDINGS, "Lung nodule.", {"Lung nodule": 1, "Arterial wall calcification": 1}),
    "train_1_a_2": ("train", FINDINGS, "Lung nodule.", {"Lung nodule": 1, "Arterial wall calcification": 1}),
    "train_2_a_1": ("train", FINDINGS, "", {"Coronary artery wall calcification": 1}),
    "train_3_a_1": ("train", "", "Normal.", {}),
    "train_4_a_1": ("train", FINDINGS, "A head.", {}),
    "train_5_b_1": ("train", FINDINGS, "Held out by another set.", {}),
    "valid_1_a_1": ("valid", FINDINGS, "Normal.", {}),
    "valid_2_a_1": ("valid", FINDINGS, "Normal.", {}),
}


def volume_file(origin: Path, volume: str) -> Path:
    part, number, letter, _ = volume.split("_")
    return origin / f"dataset/{part}_fixed/{part}_{number}/{part}_{number}_{letter}/{volume}.nii.gz"


@miniature(
    "ct-rate",
    truncated={"dataset/valid_fixed/valid_2/valid_2_a/valid_2_a_1.nii.gz": "valid_2_a_1"},
)
def prepared(origin: Path) -> None:
    for part, table in (("train", "train"), ("valid", "validation")):
        mine = {name: facts for name, facts in VOLUMES.items() if facts[0] == part}
        reports = [
            {
                "VolumeName": f"{name}.nii.gz",
                "ClinicalInformation_EN": "",
                "Findings_EN": text,
                "Impressions_EN": end,
            }
            for name, (_, text, end, _) in mine.items()
        ]
        labels = [
            {"VolumeName": f"{name}.nii.gz"} | dict.fromkeys(CT_RATE_TARGETS, 0) | found
            for name, (_, _, _, found) in mine.items()
        ]
        write_table(origin / f"dataset/radiology_text_reports/{table}_reports.csv", reports)
        write_table(origin / f"dataset/multi_abnormality_labels/{part}_predicted_labels.csv", labels)
    for name in VOLUMES:
        SCAN.write_image(volume_file(origin, name))
    (origin / "dataset/metadata").mkdir()
    (origin / "dataset/metadata/no_chest_train.txt").write_text("train_4_a_1.nii.gz\n")
    (origin / "ReXGroundingCT").mkdir()
    (origin / "ReXGroundingCT/dataset.json").write_text(
        json.dumps({"train": [], "val": [{"name": "train_5_a_2.nii.gz"}]})
    )


def test_every_reconstruction_has_the_report_of_its_study(prepared: Prepared):
    for name in ("train_1_a_1", "train_1_a_2"):
        assert prepared.rows[name]["messages"][1]["content"] == (
            "Findings: Trachea is open. A 5 mm nodule is seen in the right lung.\nImpression: Lung nodule."
        )
    assert prepared.rows["train_2_a_1"]["messages"][1]["content"].endswith(
        "in the right lung."
    )  # no impression


def test_the_two_calcifications_are_labels_of_their_own(prepared: Prepared):
    one, other = (prepared.rows[name]["messages"][3]["content"] for name in ("train_1_a_1", "train_2_a_1"))
    assert " arterial calcification: yes" in one
    assert "coronary artery calcification: no" in one
    assert "coronary artery calcification: yes" in other
    assert " arterial calcification" not in other  # implied
    assert one.count(":") == len(CT_RATE_TARGETS) + 1


def test_orientation_and_spacing_are_kept(prepared: Prepared):
    array, affine = image_of(prepared.rows["train_1_a_1"])
    assert array.dtype == np.uint8
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), SCAN.spacing, rtol=1e-5)
    x, y, z = np.rint(np.linalg.inv(affine) @ [*SCAN.centre_mm(2), 1]).astype(int)[:3]
    assert array[z, y, x] > np.median(array[array > 0])


def test_the_validation_part_is_the_test_split_and_held_out_patients_stay_held_out(prepared: Prepared):
    assert prepared.split_of == {
        "train_1_a_1": "train",
        "train_1_a_2": "train",
        "train_2_a_1": "train",
        "train_5_b_1": "validation",
        "valid_1_a_1": "test",
    }
    assert prepared.rows["train_1_a_2"]["patient"] == "ct-rate:train_1"


def test_heads_and_reports_without_findings_are_left_out(prepared: Prepared):
    assert set(prepared.result.left_out) == {"train_3_a_1", "train_4_a_1"}
