from pathlib import Path

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

VALUES = tuple(range(1, 16))
ABDOMEN = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior vena cava": 9,
    "pancreas": 10,
    "right adrenal gland": 11,
    "left adrenal gland": 12,
    "duodenum": 13,
    "bladder": 14,
}
SEX = {"0001": "M", "0004": "F", "0017": "", "0507": "F"}
PHANTOMS = {
    "0001": Phantom(values=VALUES),
    "0004": Phantom(values=VALUES, axcodes="RAS", seed=1),
    "0017": Phantom(values=(1, 2, 15), seed=2),
    "0507": Phantom(values=(6,), spacing=(1.5, 1.5, 3.0), background=0, seed=3),
}


@miniature(
    "amos22",
    truncated={"amos22/imagesTr/amos_0033.nii.gz": "amos_0033"},
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        suffix = "Va" if key == "0017" else "Tr"
        phantom.write_image(origin / f"amos22/images{suffix}/amos_{key}.nii.gz")
        phantom.write_labels(origin / f"amos22/labels{suffix}/amos_{key}.nii.gz")
    broken = origin / "amos22/imagesTr/amos_0033.nii.gz"
    PHANTOMS["0001"].write_labels(origin / "amos22/labelsTr/amos_0033.nii.gz")
    PHANTOMS["0001"].write_image(broken)
    _hide(origin / "amos22/labelsTr/._amos_0001.nii.gz")
    rows = [{"amos_id": str(int(key)), "Patient's Sex": sex} for key, sex in SEX.items()]
    write_table(origin / "labeled_data_meta_0000_0599.csv", rows)


def _hide(path: Path) -> None:
    path.write_bytes(b"resource fork")


def test_every_label_lies_at_its_place_in_the_patient(prepared: Prepared):
    assert_row_shows(prepared.rows["amos_0001"], PHANTOMS["0001"], ABDOMEN | {"prostate": 15})


def test_label_15_follows_the_sex_and_the_stored_orientation_does_not_matter(prepared: Prepared):
    assert_row_shows(prepared.rows["amos_0004"], PHANTOMS["0004"], ABDOMEN | {"uterus": 15})


def test_label_15_of_unknown_sex_says_nothing(prepared: Prepared):
    absent = set(ABDOMEN) - {"spleen", "right kidney"}
    assert_row_shows(prepared.rows["amos_0017"], PHANTOMS["0017"], {"spleen": 1, "right kidney": 2}, absent)


def test_cases_from_501_are_mri_and_organs_without_voxels_are_absent(prepared: Prepared):
    row = prepared.rows["amos_0507"]
    assert row["modality"] == "MRI"
    assert_row_shows(row, PHANTOMS["0507"], {"liver": 6}, (set(ABDOMEN) - {"liver"}) | {"uterus"})


def test_official_splits_are_kept(prepared: Prepared):
    train = dict.fromkeys(("amos_0001", "amos_0004", "amos_0507"), "train")
    assert prepared.split_of == train | {"amos_0017": "validation"}
