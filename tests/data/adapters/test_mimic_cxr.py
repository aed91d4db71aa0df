from pathlib import Path

from tests.fixtures.miniatures import (
    Prepared,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters.mimic_cxr import JPG
from vividmed.data.raw.finding_labels import CHEXPERT_TARGETS, NO_FINDING

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 FINDINGS:

 The heart is enlarged and there is a small
 left pleural effusion at the base. Compared with ___ the lines were removed.

 IMPRESSION:

 Cardiomegaly with a small effusion. These were discussed with Dr. ___ by
 telephone.
"""
NORMAL = REPORT.replace(
    "The heart is enlarged and there is a small\n left", "No sign of consolidation, edema or of a"
)
SHORT = " FINAL REPORT\n FINDINGS: Clear lungs.\n\n IMPRESSION: Normal chest.\n"
STUDIES = {  # study: subject, split, report, images with view, labels
    "50000001": (
        "10000001",
        "train",
        REPORT,
        {"aa-1": "PA", "bb-2": "LATERAL"},
        {"Cardiomegaly": "1.0", "Edema": "-1.0"},
    ),
    "50000002": ("10000001", "train", NORMAL, {"cc-3": ""}, {NO_FINDING: "1.0"}),
    "50000003": ("11000002", "validate", REPORT, {"dd-4": "AP"}, {}),
    "50000004": ("11000003", "test", REPORT, {"ee-5": "AP AXIAL"}, {"Pneumothorax": "0.0"}),
    "50000005": ("11000004", "test", SHORT, {"ff-6": "PA"}, {"Pneumothorax": "0.0"}),
    "50000006": ("11000005", "test", None, {"gg-7": "PA"}, {"Pneumothorax": "0.0"}),
    "50000007": ("11000006", "test", REPORT, {"hh-8": "PA"}, {"Pneumothorax": "0.0"}),
}


def write_studies(origin: Path) -> None:
    splits, views, labels = [], [], []
    for study, (subject, split, report, images, found) in STUDIES.items():
        folder = f"files/p{subject[:2]}/p{subject}"
        if report is not None:
            text = origin / f"MIMIC-CXR/{folder}/s{study}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(report)
        for seed, (dicom, view) in enumerate(images.items()):
            write_picture(origin / JPG / folder / f"s{study}/{dicom}.jpg", picture(seed=seed))
            splits.append({"dicom_id": dicom, "study_id": study, "subject_id": subject, "split": split})
            views.append({"dicom_id": dicom, "ViewPosition": view})
        blank = dict.fromkeys([NO_FINDING, *CHEXPERT_TARGETS, "Pleural Other"], "")
        labels.append({"subject_id": subject, "study_id": study} | blank | found)
    write_table(origin / JPG / "mimic-cxr-2.0.0-split.csv", splits)
    write_table(origin / JPG / "mimic-cxr-2.0.0-metadata.csv", views)
    write_table(origin / JPG / "mimic-cxr-2.0.0-chexpert.csv", labels)


@miniature(
    "mimic-cxr",
    truncated={"MIMIC-CXR-JPG/files/p11/p11000006/s50000007/hh-8.jpg": "s50000007"},
)
def prepared(origin: Path) -> None:
    write_studies(origin)


def test_the_report_has_both_sections_without_placeholders_and_phone_calls(prepared: Prepared):
    row = prepared.rows["s50000001"]
    assert row["messages"][1]["content"] == (
        "Findings: The heart is enlarged and there is a small left pleural effusion at the base.\n"
        "Impression: Cardiomegaly with a small effusion."
    )


def test_images_of_a_study_are_one_row_with_their_views(prepared: Prepared):
    row = prepared.rows["s50000001"]
    assert [image.size for image in row["images"]] == [(40, 48), (40, 48)]
    assert row["plane"] is None  # two views
    assert prepared.rows["s50000002"]["plane"] is None
    assert prepared.rows["s50000004"]["plane"] == "AP axial"


def test_uncertain_is_kept_apart_and_blank_is_not_negative(prepared: Prepared):
    row = prepared.rows["s50000001"]
    assert row["kind"] == "report+presence"
    assert row["messages"][3]["content"] == "Results: cardiomegaly: yes, pulmonary edema: uncertain."
    assert prepared.rows["s50000003"]["kind"] == "report"


def test_no_finding_makes_blank_labels_negative(prepared: Prepared):
    answer = prepared.rows["s50000002"]["messages"][3]["content"]
    assert answer.count(": no") == len(CHEXPERT_TARGETS) - 1  # all but devices
    assert "yes" not in answer


def test_splits_are_official_and_patients_are_the_subjects(prepared: Prepared):
    assert prepared.split_of == {
        "s50000001": "train",
        "s50000002": "train",
        "s50000003": "validation",
        "s50000004": "test",
    }
    assert (
        prepared.rows["s50000002"]["patient"]
        == prepared.rows["s50000001"]["patient"]
        == "mimic-cxr:p10000001"
    )


def test_studies_without_a_full_report_are_left_out(prepared: Prepared):
    assert set(prepared.result.left_out) == {"s50000005", "s50000006"}
