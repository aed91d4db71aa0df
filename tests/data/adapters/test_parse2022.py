import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature, truncate

PHANTOMS = {
    "PA000005": Phantom(values=(1,), axcodes="LPS"),
    "PA000016": Phantom(values=(1,), axcodes="RAS", spacing=(0.7, 0.7, 1.0), seed=1),
    "PA000024": Phantom(values=(), seed=2),
    "PA000027": Phantom(values=(1,), seed=3),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    tmp_path = tmp_path_factory.mktemp("parse2022")
    origin = tmp_path / "origin"
    for key, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"train/{key}/image/{key}.nii.gz")
        phantom.write_labels(origin / f"train/{key}/label/{key}.nii.gz")
    truncate(origin / "train/PA000027/label/PA000027.nii.gz")
    return prepare_miniature("parse2022", origin, tmp_path)


@pytest.mark.parametrize("key", ["PA000005", "PA000016"])
def test_the_arterial_tree_lies_at_its_place(prepared: Prepared, key: str):
    assert prepared.rows[key]["modality"] == "CT angiography"
    assert prepared.rows[key]["patient"] == f"parse2022:{key}"
    assert_row_shows(prepared.rows[key], PHANTOMS[key], {"pulmonary artery": 1})


def test_an_empty_label_map_means_absent(prepared: Prepared):
    assert_row_shows(prepared.rows["PA000024"], PHANTOMS["PA000024"], {}, ["pulmonary artery"])


def test_a_truncated_label_map_fails_alone(prepared: Prepared):
    assert list(prepared.result.failed) == ["PA000027"]
    assert len(prepared.rows) == 3
