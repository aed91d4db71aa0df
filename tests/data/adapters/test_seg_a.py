from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

TREE = "aortic vessel tree"
PHANTOMS = {
    "Dongyang/D1": Phantom(values=(1,)),
    "KiTS/K3": Phantom(values=(1,), axcodes="LPI", spacing=(0.8, 0.8, 2.0), seed=1),
    "Rider/R2": Phantom(values=(), seed=2),
    "Rider/R7": Phantom(values=(1,), seed=3),
}


@miniature(
    "seg-a-2023",
    truncated={"Rider/R7/R7.nrrd": "R7"},
)
def prepared(origin: Path) -> None:
    for folder, phantom in PHANTOMS.items():
        key = folder.partition("/")[2]
        phantom.write_image(origin / folder / f"{key}.nrrd")
        phantom.write_labels(origin / folder / f"{key}.seg.nrrd")


@pytest.mark.parametrize("folder", ["Dongyang/D1", "KiTS/K3"])
def test_the_vessel_tree_lies_at_its_place(prepared: Prepared, folder: str):
    row = prepared.rows[folder.partition("/")[2]]
    assert row["modality"] == "CT angiography"
    assert_row_shows(row, PHANTOMS[folder], {TREE: 1})


def test_an_empty_segmentation_means_absent(prepared: Prepared):
    assert_row_shows(prepared.rows["R2"], PHANTOMS["Rider/R2"], {}, [TREE])


def test_patients_have_the_numbers_of_the_data_set(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {
        f"seg-a-2023:{key}" for key in ("D1", "K3", "R2")
    }
