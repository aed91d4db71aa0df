import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature, truncate

SPACE = "space-MNI152NLin2009aSym"
STROKE = Phantom(values=(1,), spacing=(1.0, 1.0, 1.0), background=0, axcodes="RAS")
HEALTHY = Phantom(values=(), spacing=(1.0, 1.0, 1.0), background=0, axcodes="RAS", seed=1)
PHANTOMS = {
    "sub-r001s001_ses-1": STROKE,
    "sub-r001s001_ses-2": STROKE,
    "sub-r002s004_ses-1": HEALTHY,
    "sub-r002s005_ses-1": STROKE,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    tmp_path = tmp_path_factory.mktemp("atlas")
    origin = tmp_path / "origin"
    for key, phantom in PHANTOMS.items():
        subject, _, session = key.partition("_")
        folder = origin / "Training" / f"R{subject[5:8]}" / subject / session / "anat"
        phantom.write_image(folder / f"{key}_{SPACE}_T1w.nii.gz")
        phantom.write_labels(folder / f"{key}_{SPACE}_label-L_desc-T1lesion_mask.nii.gz")
    truncate(folder / f"{key}_{SPACE}_T1w.nii.gz")
    return prepare_miniature("atlas", origin, tmp_path)


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


def test_a_truncated_scan_fails_alone(prepared: Prepared):
    assert list(prepared.result.failed) == ["sub-r002s005_ses-1"]
    assert len(prepared.rows) == 3
