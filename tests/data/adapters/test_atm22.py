import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature, truncate

AIRWAY = Phantom(values=(1,), spacing=(0.75, 0.75, 1.0))
EMPTY = Phantom(values=(), spacing=(0.75, 0.75, 1.0), seed=1)
PHANTOMS = {
    "TrainBatch1/ATM_001_0000": AIRWAY,
    "TrainBatch1/ATM_002_0000": EMPTY,
    "TrainBatch2/ATM_164_0000": AIRWAY,
    "TrainBatch2/ATM_250_0000": AIRWAY,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    tmp_path = tmp_path_factory.mktemp("atm22")
    origin = tmp_path / "origin"
    for place, phantom in PHANTOMS.items():
        batch, _, key = place.partition("/")
        phantom.write_image(origin / batch / f"imagesTr/{key}.nii.gz")
        phantom.write_labels(origin / batch / f"labelsTr/{key}.nii.gz")
    truncate(origin / "TrainBatch2/labelsTr/ATM_250_0000.nii.gz")
    return prepare_miniature("atm22", origin, tmp_path)


def test_the_airway_lies_at_its_place(prepared: Prepared):
    assert_row_shows(prepared.rows["ATM_001_0000"], AIRWAY, {"airway": 1})
    assert prepared.rows["ATM_001_0000"]["patient"] == "atm22:ATM_001"


def test_an_empty_label_map_means_no_airway(prepared: Prepared):
    assert_row_shows(prepared.rows["ATM_002_0000"], EMPTY, {}, ["airway"])


def test_the_case_with_the_wrong_label_is_left_out_with_its_reason(prepared: Prepared):
    assert prepared.result.left_out == {"ATM_164_0000": "the organisers announced that its label is wrong"}


def test_a_truncated_label_fails_alone(prepared: Prepared):
    assert list(prepared.result.failed) == ["ATM_250_0000"]
    assert set(prepared.rows) == {"ATM_001_0000", "ATM_002_0000"}
