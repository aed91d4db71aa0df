from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

PHANTOMS = {
    "PA000005": Phantom(values=(1,), axcodes="LPS"),
    "PA000016": Phantom(values=(1,), axcodes="RAS", spacing=(0.7, 0.7, 1.0), seed=1),
    "PA000024": Phantom(values=(), seed=2),
    "PA000027": Phantom(values=(1,), seed=3),
}


@miniature(
    "parse2022",
    truncated={"train/PA000027/label/PA000027.nii.gz": "PA000027"},
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"train/{key}/image/{key}.nii.gz")
        phantom.write_labels(origin / f"train/{key}/label/{key}.nii.gz")


@pytest.mark.parametrize("key", ["PA000005", "PA000016"])
def test_the_arterial_tree_lies_at_its_place(prepared: Prepared, key: str):
    assert prepared.rows[key]["modality"] == "CT angiography"
    assert prepared.rows[key]["patient"] == f"parse2022:{key}"
    assert_row_shows(prepared.rows[key], PHANTOMS[key], {"pulmonary artery": 1})


def test_an_empty_label_map_means_absent(prepared: Prepared):
    assert_row_shows(prepared.rows["PA000024"], PHANTOMS["PA000024"], {}, ["pulmonary artery"])
