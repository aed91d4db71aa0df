from pathlib import Path

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    masks_of,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

CANCER = "prostate cancer"
DRAWN = "picai_labels/csPCa_lesion_delineations/human_expert/resampled"
LESIONS = Phantom(values=(2, 5), spacing=(0.5, 0.5, 3.0), background=0, body=300)  # two grades
CLEAR = Phantom(values=(), axcodes="RAS", spacing=(0.5, 0.5, 3.0), background=0, body=300, seed=1)
STUDIES = {  # patient_study: phantom, grade of the study
    "10000_1000000": (LESIONS, "5"),
    "10001_1000001": (CLEAR, "0"),
    "10002_1000002": (CLEAR, "1"),
    "10002_1000003": (CLEAR, "0"),
    "10005_1000005": (LESIONS, "2"),
    "10012_1000012": (LESIONS, "3"),
}


@miniature(
    "pi-cai",
    truncated={"picai_public_images_fold0/10012/10012_1000012_t2w.mha": "10012_1000012"},
)
def prepared(origin: Path) -> None:
    for number, (key, (phantom, _)) in enumerate(STUDIES.items()):
        patient = key.partition("_")[0]
        folder = origin / f"picai_public_images_fold{number % 5}" / patient
        for sequence in ("t2w", "adc"):
            phantom.write_image(folder / f"{key}_{sequence}.mha")
        if key != "10005_1000005":
            phantom.write_labels(origin / DRAWN / f"{key}.nii.gz")
    rows = [
        {"patient_id": key[:5], "study_id": key[6:], "case_ISUP": grade, "case_csPCa": ""}
        for key, (_, grade) in STUDIES.items()
    ]
    write_table(origin / "picai_labels/clinical_information/marksheet.csv", rows)


def test_lesions_of_every_grade_are_instances_of_cancer(prepared: Prepared):
    row = prepared.rows["10000_1000000"]
    assert row["modality"] == "T2 MRI"
    assert_row_shows(row, LESIONS, {CANCER: (2, 5)})
    assert len(masks_of(row, CANCER)) == 2


def test_cancer_is_absent_only_where_none_was_found_at_all(prepared: Prepared):
    assert_row_shows(prepared.rows["10001_1000001"], CLEAR, {}, [CANCER])
    assert_row_shows(prepared.rows["10002_1000002"], CLEAR, {}, [])


def test_studies_of_a_patient_share_patient_and_split(prepared: Prepared):
    keys = ("10002_1000002", "10002_1000003")
    assert {prepared.rows[key]["patient"] for key in keys} == {"pi-cai:10002"}
    assert len({prepared.split_of[key] for key in keys}) == 1


def test_studies_no_expert_drew_are_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["10005_1000005"]
