import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature, truncate

ORGANS = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
PHANTOMS = {
    "Patient_01": Phantom(values=(1, 2, 3, 4)),
    "Patient_02": Phantom(values=(1, 2, 3, 4), axcodes="RPI", spacing=(0.98, 0.98, 2.5), seed=1),
    "Patient_03": Phantom(values=(1, 4), seed=2),
    "Patient_40": Phantom(values=(1, 2, 3, 4), seed=3),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    tmp_path = tmp_path_factory.mktemp("segthor")
    origin = tmp_path / "origin"
    for key, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"train/{key}/{key}.nii.gz")
        phantom.write_labels(origin / f"train/{key}/GT.nii.gz")
    truncate(origin / "train/Patient_40/Patient_40.nii.gz")
    return prepare_miniature("segthor", origin, tmp_path)


@pytest.mark.parametrize("key", ["Patient_01", "Patient_02"])
def test_organs_lie_at_their_places(prepared: Prepared, key: str):
    assert prepared.rows[key]["modality"] == "CT"
    assert_row_shows(prepared.rows[key], PHANTOMS[key], ORGANS)


def test_organs_without_voxels_are_absent(prepared: Prepared):
    row = prepared.rows["Patient_03"]
    assert_row_shows(row, PHANTOMS["Patient_03"], {"esophagus": 1, "aorta": 4}, {"heart", "trachea"})


def test_a_truncated_image_fails_alone(prepared: Prepared):
    assert list(prepared.result.failed) == ["Patient_40"]
    assert {row["patient"] for row in prepared.rows.values()} == {"segthor:01", "segthor:02", "segthor:03"}
