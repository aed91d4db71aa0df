from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters import get_adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.plan import list_cases
from vividmed.data.raw.splits import split_by_hash

ORGANS = {
    "liver": 1,
    "spleen": 2,
    "left kidney": 3,
    "right kidney": 4,
    "stomach": 5,
    "gallbladder": 6,
    "esophagus": 7,
    "pancreas": 8,
    "duodenum": 9,
    "colon": 10,
    "intestine": 11,
    "adrenal gland": 12,
    "rectum": 13,
    "bladder": 14,
    "head of left femur": 15,
    "head of right femur": 16,
}
SIDES = ((3, 4), (15, 16))
WHOLE = Phantom(values=tuple(ORGANS.values()), axcodes="LPS", spacing=(0.98, 0.98, 3.0), sides=SIDES)
NO_GALLBLADDER = Phantom(
    values=tuple(v for v in ORGANS.values() if v != 6),
    axcodes="RAS",
    spacing=(0.8, 0.8, 2.5),
    seed=1,
    sides=SIDES,
)
LITS = "addition_validation_from_LiTS/lablesTs/liver_12_word_label.nii.gz"


def _write(origin: Path) -> None:
    for suffix, key, phantom in (
        ("Tr", "word_0002", WHOLE),
        ("Tr", "word_0003", WHOLE),
        ("Val", "word_0001", NO_GALLBLADDER),
    ):
        phantom.write_image(origin / f"images{suffix}/{key}.nii.gz")
        phantom.write_labels(origin / f"labels{suffix}/{key}.nii.gz")
    WHOLE.write_labels(origin / LITS)


@miniature(
    "word",
    truncated={"imagesTr/word_0003.nii.gz": "word_0003"},
)
def prepared(origin: Path) -> None:
    _write(origin)
    WHOLE.write_image(origin / "MSD/Task03_Liver/imagesTr/liver_12.nii.gz")


@pytest.mark.parametrize("key", ["word_0002", "liver_12"])
def test_organs_lie_at_their_places(prepared: Prepared, key: str):
    assert_row_shows(prepared.rows[key], WHOLE, ORGANS)


def test_an_organ_without_voxels_is_absent(prepared: Prepared):
    present = {name: value for name, value in ORGANS.items() if name != "gallbladder"}
    assert_row_shows(prepared.rows["word_0001"], NO_GALLBLADDER, present, ["gallbladder"])


def test_official_splits_are_kept_and_scans_of_lits_lie_where_lits_puts_them(prepared: Prepared):
    assert prepared.rows["liver_12"]["patient"] == "lits:12"
    assert prepared.split_of == {
        "word_0002": "train",
        "word_0001": "validation",
        "liver_12": split_by_hash("lits:12"),
    }


def test_scans_of_lits_are_left_out_if_they_are_missing(tmp_path: Path):
    _write(tmp_path)
    listing = list_cases(get_adapter("word"), tmp_path, Processing())
    assert {item.case.id for item in listing.cases} == {"word_0001", "word_0002", "word_0003"}
    assert list(listing.left_out) == ["liver_12"]
    assert "MSD/Task03_Liver" in listing.left_out["liver_12"]
