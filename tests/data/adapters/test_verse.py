from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

LEVELS = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 7)]
VERTEBRAE = {f"{level} vertebra": value for value, level in enumerate(LEVELS, start=1)}
WHOLE = Phantom(values=(*range(1, 26), 28), size=(38, 34, 20))
LUMBAR = Phantom(values=(20, 21, 26), axcodes="PIR", spacing=(3.0, 0.5, 0.5), seed=1)
SCANS = {
    "dataset-01training/sub-verse004/sub-verse004": WHOLE,
    "dataset-02validation/sub-gl017/sub-gl017_dir-ax": LUMBAR,
    "dataset-03test/sub-verse401/sub-verse401_split-verse253": WHOLE,
    "dataset-03test/sub-verse401/sub-verse401_split-verse254": LUMBAR,
    "dataset-03test/sub-verse500/sub-verse500": WHOLE,
}


@miniature(
    "verse",
    truncated={"dataset-03test/rawdata/sub-verse500/sub-verse500_ct.nii.gz": "sub-verse500"},
)
def prepared(origin: Path) -> None:
    for place, phantom in SCANS.items():
        part, subject, key = place.split("/")
        phantom.write_image(origin / part / "rawdata" / subject / f"{key}_ct.nii.gz")
        phantom.write_labels(origin / part / "derivatives" / subject / f"{key}_seg-vert_msk.nii.gz")


def test_every_vertebra_lies_at_its_place(prepared: Prepared):
    assert_row_shows(prepared.rows["sub-verse004"], WHOLE, VERTEBRAE | {"T13 vertebra": 28})


def test_vertebrae_outside_are_absent_and_of_the_sacrum_nothing_is_known(prepared: Prepared):
    seen = {"L1 vertebra": 20, "L2 vertebra": 21, "sacrum": 26}
    absent = (set(VERTEBRAE) | {"T13 vertebra"}) - set(seen)
    assert_row_shows(prepared.rows["sub-gl017_dir-ax"], LUMBAR, seen, absent)
    assert not {"sacrum", "coccyx"} & set(prepared.rows["sub-verse004"]["absent"])


def test_official_splits_are_kept_and_scans_of_a_subject_stay_together(prepared: Prepared):
    assert prepared.split_of == {
        "sub-verse004": "train",
        "sub-gl017_dir-ax": "validation",
        "sub-verse401_split-verse253": "test",
        "sub-verse401_split-verse254": "test",
    }
    keys = ("sub-verse401_split-verse253", "sub-verse401_split-verse254")
    assert {prepared.rows[key]["patient"] for key in keys} == {"verse:verse401"}
