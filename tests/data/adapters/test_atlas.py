from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

SPACE = "space-MNI152NLin2009aSym"
STROKE = Phantom(values=(1,), spacing=(1.0, 1.0, 1.0), background=0, axcodes="RAS")
HEALTHY = Phantom(values=(), spacing=(1.0, 1.0, 1.0), background=0, axcodes="RAS", seed=1)
PHANTOMS = {
    "sub-r001s001_ses-1": STROKE,
    "sub-r001s001_ses-2": STROKE,
    "sub-r002s004_ses-1": HEALTHY,
    "sub-r002s005_ses-1": STROKE,
}


@miniature(
    "atlas",
    truncated={
        "Training/R002/sub-r002s005/ses-1/anat/sub-r002s005_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz": "sub-r002s005_ses-1"
    },
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        subject, _, session = key.partition("_")
        folder = origin / "Training" / f"R{subject[5:8]}" / subject / session / "anat"
        phantom.write_image(folder / f"{key}_{SPACE}_T1w.nii.gz")
        phantom.write_labels(folder / f"{key}_{SPACE}_label-L_desc-T1lesion_mask.nii.gz")


def test_the_lesion_lies_at_its_place(prepared: Prepared):
    for key in ("sub-r001s001_ses-1", "sub-r001s001_ses-2"):
        assert_row_shows(prepared.rows[key], STROKE, {"stroke lesion": 1})
        assert prepared.rows[key]["modality"] == "T1 MRI"


def test_a_scan_with_an_empty_mask_has_no_lesion(prepared: Prepared):
    assert_row_shows(prepared.rows["sub-r002s004_ses-1"], HEALTHY, {}, ["stroke lesion"])


def test_sessions_of_a_subject_share_patient_and_split(prepared: Prepared):
    keys = ("sub-r001s001_ses-1", "sub-r001s001_ses-2")
    assert {prepared.rows[key]["patient"] for key in keys} == {"atlas:sub-r001s001"}
    assert len({prepared.split_of[key] for key in keys}) == 1
