import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature, truncate

STROKE = Phantom(values=(1,), spacing=(2.0, 2.0, 2.0), background=0, body=300, axcodes="RAS")
HEALTHY = Phantom(values=(), spacing=(2.0, 2.0, 2.0), background=0, body=300, seed=1)
PHANTOMS = {
    "sub-strokecase0001": STROKE,
    "sub-strokecase0002": HEALTHY,
    "sub-strokecase0003": STROKE,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    tmp_path = tmp_path_factory.mktemp("isles22")
    origin = tmp_path / "origin"
    for subject, phantom in PHANTOMS.items():
        key = f"{subject}_ses-0001"
        for suffix in ("dwi", "adc"):
            phantom.write_image(origin / subject / f"ses-0001/dwi/{key}_{suffix}.nii.gz")
        Phantom(size=(20, 20, 12)).write_image(origin / subject / f"ses-0001/anat/{key}_FLAIR.nii.gz")
        phantom.write_labels(origin / "derivatives" / subject / f"ses-0001/{key}_msk.nii.gz")
    truncate(origin / subject / f"ses-0001/dwi/{key}_adc.nii.gz")
    return prepare_miniature("isles22", origin, tmp_path)


def test_both_sequences_show_the_lesion(prepared: Prepared):
    for modality in ("DW MRI", "ADC MRI"):
        row = prepared.rows[f"sub-strokecase0001_ses-0001_{modality.replace(' ', '-')}"]
        assert row["modality"] == modality
        assert row["patient"] == "isles22:sub-strokecase0001"
        assert_row_shows(row, STROKE, {"stroke lesion": 1})


def test_an_empty_mask_means_no_lesion(prepared: Prepared):
    assert_row_shows(prepared.rows["sub-strokecase0002_ses-0001_DW-MRI"], HEALTHY, {}, ["stroke lesion"])


def test_a_case_with_a_truncated_sequence_fails_as_a_whole(prepared: Prepared):
    assert list(prepared.result.failed) == ["sub-strokecase0003_ses-0001"]
    assert len(prepared.rows) == 4
