from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

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
    "portal vein and splenic vein": 10,
    "pancreas": 11,
    "right adrenal gland": 12,
    "left adrenal gland": 13,
}
PELVIS = {"bladder": 1, "uterus": 2, "rectum": 3, "small intestine": 4}
ABDOMENS = {
    "0001": Phantom(values=tuple(range(1, 14)), spacing=(0.75, 0.75, 3.0)),
    "0002": Phantom(values=(6,), spacing=(0.75, 0.75, 3.0), axcodes="RPI", seed=1),
    "0003": Phantom(values=(6,), seed=2),
}
PELVES = {
    "0507688": Phantom(values=(1, 2, 3, 4), spacing=(1.0, 1.0, 2.5)),
    "0759564": Phantom(values=(1, 3), spacing=(1.0, 1.0, 2.5), seed=1),
    "0890989": Phantom(values=(1,), seed=2),
}


@miniature("btcv-abdomen", truncated={"RawData/Training/img/img0003.nii.gz": "0003"})
def abdomen(origin: Path) -> None:
    _write(origin, "img*.nii.gz", "label*.nii.gz", ABDOMENS)


@miniature("btcv-cervix", truncated={"RawData/Training/img/0890989-Image.nii.gz": "0890989"})
def cervix(origin: Path) -> None:
    _write(origin, "*-Image.nii.gz", "*-Mask.nii.gz", PELVES)


def _write(origin: Path, image: str, label: str, phantoms: dict[str, Phantom]) -> None:
    folder = origin / "RawData/Training"
    for number, phantom in phantoms.items():
        phantom.write_image(folder / "img" / image.replace("*", number))
        phantom.write_labels(folder / "label" / label.replace("*", number))


def test_every_abdominal_label_lies_at_its_place(abdomen: Prepared):
    assert_row_shows(abdomen.rows["0001"], ABDOMENS["0001"], ABDOMEN)
    assert abdomen.rows["0001"]["patient"] == "btcv-abdomen:0001"


def test_every_pelvic_label_lies_at_its_place(cervix: Prepared):
    assert_row_shows(cervix.rows["0507688"], PELVES["0507688"], PELVIS)
    assert cervix.rows["0507688"]["patient"] == "btcv-cervix:0507688"


def test_organs_without_a_voxel_are_absent(abdomen: Prepared, cervix: Prepared):
    assert_row_shows(abdomen.rows["0002"], ABDOMENS["0002"], {"liver": 6}, set(ABDOMEN) - {"liver"})
    assert_row_shows(
        cervix.rows["0759564"],
        PELVES["0759564"],
        {"bladder": 1, "rectum": 3},
        ["uterus", "small intestine"],
    )
