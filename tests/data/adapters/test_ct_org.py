from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

DRAWN = {"liver": 1, "bladder": 2, "kidney": 4}
ALL = Phantom(values=(1, 2, 3, 4, 5, 6), spacing=(0.75, 0.75, 2.0))
PHANTOMS = {
    "0": ALL,
    "21": ALL,
    "130": Phantom(values=(1, 3, 4, 5), seed=1, axcodes="RAS"),
    "135": Phantom(values=(2, 6), seed=2),
    "139": ALL,
}


@miniature(
    "ct-org",
    truncated={"volume-139.nii.gz": "139"},
)
def prepared(origin: Path) -> None:
    for number, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"volume-{number}.nii.gz")
        phantom.write_labels(origin / f"labels-{number}.nii.gz")


def test_the_first_scans_have_all_organs(prepared: Prepared):
    assert_row_shows(prepared.rows["0"], ALL, DRAWN | {"brain": 6, "lung": 3, "bone": 5})


def test_lungs_and_bones_that_thresholds_found_are_not_used(prepared: Prepared):
    assert_row_shows(prepared.rows["21"], ALL, DRAWN | {"brain": 6})


def test_a_missing_organ_is_absent_and_a_missing_brain_unknown(prepared: Prepared):
    assert_row_shows(prepared.rows["130"], PHANTOMS["130"], {"liver": 1, "kidney": 4}, ["bladder"])
    assert_row_shows(prepared.rows["135"], PHANTOMS["135"], {"bladder": 2, "brain": 6}, ["liver", "kidney"])


def test_patients_of_lits_keep_their_key(prepared: Prepared):
    patients = {key: row["patient"] for key, row in prepared.rows.items()}
    assert patients == {"0": "lits:0", "21": "lits:21", "130": "lits:130", "135": "ct-org:135"}
