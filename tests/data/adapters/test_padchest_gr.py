import json
from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    image_of,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

STUDIES = {  # study: image, patient, split, findings (English, abnormal, labels, boxes)
    "101": (
        "101_a.png",
        "p1",
        "train",
        [
            (
                "Minimal biapical pleural thickening.",
                True,
                ["apical pleural thickening"],
                [[0.1, 0.0, 0.3, 0.25], [0.6, 0.0, 0.9, 0.25]],
            ),
            ("No pleural effusion.", False, None, None),
            ("Left pleural thickening", True, ["pleural thickening"], [[0.5, 0.5, 0.75, 1.0]]),
            ("Unusual something.", True, ["unheard of"], [[0.0, 0.5, 0.25, 0.75]]),
        ],
    ),
    "102": ("102_b.png", "p1", "train", [("Normal chest.", False, ["Normal"], [])]),
    "103": ("103_c.png", "p2", "validation", [("Pacemaker.", True, ["pacemaker"], [[0.0, 0.0, 0.5, 0.5]])]),
    "104": ("104_d.png", "p3", "test", [("Cardiomegaly.", True, ["cardiomegaly"], [[0.0, 0.0, 0.5, 0.5]])]),
    "105": ("105_e.png", "p4", "test", [("Cardiomegaly.", True, ["cardiomegaly"], [[0.0, 0.0, 0.5, 0.5]])]),
    "107": ("107_g.png", "p6", "test", [("Cardiomegaly.", True, ["cardiomegaly"], [[0.0, 0.0, 0.5]])]),
    "106": ("106_f.png", "p5", "test", [("Cardiomegaly.", True, ["cardiomegaly"], [[0.0, 0.0, 0.5, 0.5]])]),
}


@miniature(
    "padchest-gr",
    truncated={"Padchest_GR_files/PadChest_GR/104_d.png": "104"},
    also_failing=(
        "105",
        "107",
    ),
)
def prepared(origin: Path) -> None:
    records, table = [], []
    for study, (image, patient, split, findings) in STUDIES.items():
        if study != "105":  # missing
            write_picture(
                origin / f"Padchest_GR_files/PadChest_GR/{image}", picture((80, 40)).astype(np.uint8)
            )
        found = []
        for sentence, abnormal, labels, boxes in findings:
            entry = {"sentence_en": sentence, "sentence_es": "...", "abnormal": abnormal, "progression": None}
            optional = {"labels": labels, "boxes": boxes, "extra_boxes": [], "locations": []}
            found.append(entry | ({} if boxes is None else optional))
        records.append({"StudyID": study, "ImageID": image, "PreviousStudyID": None, "findings": found})
        if study != "106":
            table += [{"StudyID": study, "ImageID": image, "split": split, "PatientID": patient}] * len(
                findings
            )
    (origin / "grounded_reports_20240819.json").write_text(json.dumps(records))
    write_table(origin / "master_table.csv", table)


def test_sentences_with_boxes_are_phrases_and_the_others_stay_plain(prepared: Prepared):
    row = prepared.rows["101"]
    assert row["report"] == (
        "Findings: <p>Minimal biapical pleural thickening</p>. No pleural effusion. <p>Left pleural thickening</p>. "
        "<p>Unusual something</p>."
    )
    assert [phrase["targets"] for phrase in row["phrases"]] == [
        ["pleural thickening #1"],
        ["pleural thickening #3"],
        ["lesion #4"],
    ]
    assert prepared.rows["102"]["report"] == "Findings: Normal chest."
    assert prepared.rows["102"]["phrases"] == []


def test_boxes_are_fractions_of_width_and_height(prepared: Prepared):
    row = prepared.rows["101"]
    assert image_of(row)[0].shape == (1, 80, 40)
    assert [(entry["target"], entry["box"]) for entry in row["boxes"]] == [
        ("pleural thickening #1", [0, 0, 4, 1, 20, 12]),
        ("pleural thickening #1", [0, 0, 24, 1, 20, 36]),
        ("pleural thickening #3", [0, 40, 20, 1, 80, 30]),
        ("lesion #4", [0, 40, 0, 1, 60, 10]),
    ]


def test_devices_are_not_lesions(prepared: Prepared):
    assert prepared.rows["103"]["boxes"][0]["target"] == "support device #1"


def test_splits_are_official_and_follow_the_patient(prepared: Prepared):
    assert prepared.split_of == {"101": "train", "102": "train", "103": "validation"}
    assert prepared.rows["102"]["patient"] == "padchest-gr:p1"


def test_studies_that_the_table_does_not_list_are_left_out(prepared: Prepared):
    assert set(prepared.result.left_out) == {"106"}
