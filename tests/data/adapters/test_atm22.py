from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

AIRWAY = Phantom(values=(1,), spacing=(0.75, 0.75, 1.0))
EMPTY = Phantom(values=(), spacing=(0.75, 0.75, 1.0), seed=1)
PHANTOMS = {
    "TrainBatch1/ATM_001_0000": AIRWAY,
    "TrainBatch1/ATM_002_0000": EMPTY,
    "TrainBatch2/ATM_164_0000": AIRWAY,
    "TrainBatch2/ATM_250_0000": AIRWAY,
}


@miniature(
    "atm22",
    truncated={"TrainBatch2/labelsTr/ATM_250_0000.nii.gz": "ATM_250_0000"},
)
def prepared(origin: Path) -> None:
    for place, phantom in PHANTOMS.items():
        batch, _, key = place.partition("/")
        phantom.write_image(origin / batch / f"imagesTr/{key}.nii.gz")
        phantom.write_labels(origin / batch / f"labelsTr/{key}.nii.gz")


def test_the_airway_lies_at_its_place(prepared: Prepared):
    assert_row_shows(prepared.rows["ATM_001_0000"], AIRWAY, {"airway": 1})
    assert prepared.rows["ATM_001_0000"]["patient"] == "atm22:ATM_001"


def test_an_empty_label_map_means_no_airway(prepared: Prepared):
    assert_row_shows(prepared.rows["ATM_002_0000"], EMPTY, {}, ["airway"])


def test_the_case_with_the_wrong_label_is_left_out_with_its_reason(prepared: Prepared):
    assert prepared.result.left_out == {"ATM_164_0000": "the organisers announced that its label is wrong"}
