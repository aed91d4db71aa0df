from pathlib import Path

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    masks_of,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

ZONES = {"transition zone of prostate": 1, "peripheral zone of prostate": 2}
CANCER = "prostate cancer"
PHANTOM = Phantom(values=(1, 2, 3, 4), spacing=(0.4, 0.4, 3.0), background=0, body=300)


def _row(key: str, tumour: bool = True) -> dict[str, str]:
    names = {"t2": "t2", "adc": "adc", "dwi": "dwi", "t2_anatomy_reader1": "t2_anatomy_reader1"}
    paths = {column: f"train/{key}/{name}.nii.gz" for column, name in names.items()}
    return (
        {"ID": key} | paths | {"t2_tumor_reader1": f"train/{key}/t2_tumor_reader1.nii.gz" if tumour else ""}
    )


@miniature(
    "prostate158",
    truncated={"train/023/t2_anatomy_reader1.nii.gz": "023"},
)
def prepared(origin: Path) -> None:
    for key in ("020", "021", "022", "023"):
        PHANTOM.write_image(origin / f"train/{key}/t2.nii.gz")
        PHANTOM.write_labels(origin / f"train/{key}/t2_anatomy_reader1.nii.gz", {1: 1, 2: 2})
        if key != "021":  # two foci with one value
            PHANTOM.write_labels(origin / f"train/{key}/t2_tumor_reader1.nii.gz", {3: 3, 4: 3})
    write_table(origin / "train.csv", [_row("020"), _row("021", tumour=False), _row("023")])
    write_table(origin / "valid.csv", [_row("022")])


def test_zones_and_foci_lie_at_their_places(prepared: Prepared):
    row = prepared.rows["020"]
    assert row["modality"] == "T2 MRI"
    assert_row_shows(row, PHANTOM, ZONES | {CANCER: (3, 4)})


def test_each_focus_is_an_instance(prepared: Prepared):
    assert len(masks_of(prepared.rows["020"], CANCER)) == 2


def test_a_study_without_a_tumour_file_has_no_cancer(prepared: Prepared):
    assert_row_shows(prepared.rows["021"], PHANTOM, ZONES, [CANCER])


def test_official_splits_are_kept(prepared: Prepared):
    assert prepared.split_of == {"020": "train", "021": "train", "022": "validation"}
