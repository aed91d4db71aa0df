from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

LEVELS = {
    "sacrum": 1,
    "L5 vertebra": 2,
    "L4 vertebra": 3,
    "L3 vertebra": 4,
    "L2 vertebra": 5,
    "L1 vertebra": 6,
    "T12 vertebra": 7,
    "T11 vertebra": 8,
    "T10 vertebra": 9,
    "T9 vertebra": 10,
    "L5-S1 intervertebral disc": 11,
    "L4-L5 intervertebral disc": 12,
    "L3-L4 intervertebral disc": 13,
    "L2-L3 intervertebral disc": 14,
    "L1-L2 intervertebral disc": 15,
    "T12-L1 intervertebral disc": 16,
    "T11-T12 intervertebral disc": 17,
    "T10-T11 intervertebral disc": 18,
    "T9-T10 intervertebral disc": 19,
}
WHOLE = Phantom(values=tuple(range(1, 20)), axcodes="PIR", background=0, body=300)
LUMBAR = Phantom(values=(1, 2, 11), axcodes="ASR", spacing=(4.0, 0.6, 0.6), background=0, body=300, seed=1)


@miniature(
    "mrspineseg",
    truncated={"train/MR/Case100.nii.gz": "case100"},
)
def prepared(origin: Path) -> None:
    train = origin / "train"
    for number, phantom in {7: WHOLE, 12: LUMBAR, 100: WHOLE}.items():
        phantom.write_image(train / f"MR/Case{number}.nii.gz")
        phantom.write_labels(train / f"Mask/mask_case{number}.nii.gz")


def test_vertebrae_and_discs_lie_at_their_places(prepared: Prepared):
    assert prepared.rows["case7"]["modality"] == "T2 MRI"
    assert_row_shows(prepared.rows["case7"], WHOLE, LEVELS)


def test_levels_outside_the_field_of_view_are_absent(prepared: Prepared):
    seen = {"sacrum": 1, "L5 vertebra": 2, "L5-S1 intervertebral disc": 11}
    assert_row_shows(prepared.rows["case12"], LUMBAR, seen, set(LEVELS) - set(seen))


def test_sagittal_slices_come_first(prepared: Prepared):
    (volume,) = prepared.rows["case12"]["volumes"]
    assert [round(float(size), 3) for size in volume.header.get_zooms()] == [0.6, 0.6, 4.0]


def test_patients_have_the_numbers_of_the_data_set(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {"mrspineseg:7", "mrspineseg:12"}
