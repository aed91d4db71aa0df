from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

ORGANS = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
PHANTOMS = {
    "Patient_01": Phantom(values=(1, 2, 3, 4)),
    "Patient_02": Phantom(values=(1, 2, 3, 4), axcodes="RPI", spacing=(0.98, 0.98, 2.5), seed=1),
    "Patient_03": Phantom(values=(1, 4), seed=2),
    "Patient_40": Phantom(values=(1, 2, 3, 4), seed=3),
}


@miniature(
    "segthor",
    truncated={"train/Patient_40/Patient_40.nii.gz": "Patient_40"},
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"train/{key}/{key}.nii.gz")
        phantom.write_labels(origin / f"train/{key}/GT.nii.gz")


@pytest.mark.parametrize("key", ["Patient_01", "Patient_02"])
def test_organs_lie_at_their_places(prepared: Prepared, key: str):
    assert prepared.rows[key]["modality"] == "CT"
    assert_row_shows(prepared.rows[key], PHANTOMS[key], ORGANS)


def test_organs_without_voxels_are_absent(prepared: Prepared):
    row = prepared.rows["Patient_03"]
    assert_row_shows(row, PHANTOMS["Patient_03"], {"esophagus": 1, "aorta": 4}, {"heart", "trachea"})


def test_patients_have_the_numbers_of_the_data_set(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {"segthor:01", "segthor:02", "segthor:03"}
