from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

STROKE = Phantom(values=(1,), spacing=(2.0, 2.0, 2.0), background=0, body=300, axcodes="RAS")
HEALTHY = Phantom(values=(), spacing=(2.0, 2.0, 2.0), background=0, body=300, seed=1)
PHANTOMS = {
    "sub-strokecase0001": STROKE,
    "sub-strokecase0002": HEALTHY,
    "sub-strokecase0003": STROKE,
}


@miniature(
    "isles22",
    truncated={
        "sub-strokecase0003/ses-0001/dwi/sub-strokecase0003_ses-0001_adc.nii.gz": "sub-strokecase0003_ses-0001"
    },
)
def prepared(origin: Path) -> None:
    for subject, phantom in PHANTOMS.items():
        key = f"{subject}_ses-0001"
        for suffix in ("dwi", "adc"):
            phantom.write_image(origin / subject / f"ses-0001/dwi/{key}_{suffix}.nii.gz")
        Phantom(size=(20, 20, 12)).write_image(origin / subject / f"ses-0001/anat/{key}_FLAIR.nii.gz")
        phantom.write_labels(origin / "derivatives" / subject / f"ses-0001/{key}_msk.nii.gz")


def test_both_sequences_show_the_lesion(prepared: Prepared):
    for modality in ("DW MRI", "ADC MRI"):
        row = prepared.rows[f"sub-strokecase0001_ses-0001_{modality.replace(' ', '-')}"]
        assert row["modality"] == modality
        assert row["patient"] == "isles22:sub-strokecase0001"
        assert_row_shows(row, STROKE, {"stroke lesion": 1})


def test_an_empty_mask_means_no_lesion(prepared: Prepared):
    assert_row_shows(prepared.rows["sub-strokecase0002_ses-0001_DW-MRI"], HEALTHY, {}, ["stroke lesion"])
