from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    write_dicom_series,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters import get_adapter
from vividmed.errors import VividMedError

NECK = {f"C{i} vertebra": i for i in range(1, 8)}
CHEST = {f"T{i} vertebra": 7 + i for i in range(1, 13)}
LOIN = {f"L{i} vertebra": 19 + i for i in range(1, 7)}
SPINE = NECK | CHEST | LOIN
WHOLE = Phantom(values=tuple(SPINE.values()), spacing=(0.75, 0.75, 2.0))
LOWER = Phantom(values=tuple(LOIN.values())[:5], spacing=(0.75, 0.75, 2.0), seed=1)
SUBJECT = "1.3.6.1.4.1.9328.50.4"
PATHS = [
    f"{SUBJECT}.0001/01-01-2000-1-Abdomen24ACRINColo-0.4.1/4.000000-Coloprone  1.0  B30f-0.4.2",
    f"{SUBJECT}.0002/01-01-2000-1-CTC-.1240/3.000000-Colosupine  1.0  B30f-.1241",
    f"{SUBJECT}.0003/01-01-2000-1-CTC-.2319/2.000000-COLONOGRAPHY-.2320",
    "HN_P001/12-22-2009-RTHEADNECK Adult-30310/3.000000-HEADNECK  2.0  B30s-90520",
]


@miniature(
    "ctspine1k",
    truncated={"MSD/Task03_Liver/imagesTs/liver_131.nii.gz": "MSD-T03-131"},
)
def prepared(origin: Path) -> None:
    (origin / "CTSpine1K").mkdir(parents=True)
    (origin / "Path.csv").write_text("".join(f"{path}\n" for path in PATHS))
    masks = {
        "trainset": [f"{SUBJECT}.0001", f"{SUBJECT}.0002", f"{SUBJECT}.0003", "liver_7"],
        "test_public": ["HN_P001", "liver_131", "volume-covid19-A-0003_ct"],
    }
    for part, names in masks.items():
        for name in names:
            phantom = LOWER if name == "liver_7" else WHOLE
            phantom.write_labels(origin / f"CTSpine1K/{part}/gt/{name}_seg.nii.gz")
    LOWER.write_image(origin / "MSD/Task03_Liver/imagesTr/liver_7.nii.gz")
    WHOLE.write_image(origin / "MSD/Task03_Liver/imagesTs/liver_131.nii.gz")
    WHOLE.write_image(origin / "CT-COVID-19/COVID-19-AR/NIfTI/volume-covid19-A-0003.nii.gz")
    _write_series(origin, f"HNSCC-3DCT-RT/{PATHS[3]}")
    _write_series(origin, f"CT COLONOGRAPHY/{PATHS[0]}")
    # Another download: the numbers at the end of the names differ.
    _write_series(origin, f"CT COLONOGRAPHY/{SUBJECT}.0002/01-01-2000-1-CTC-77/3.000000-Supine-78")
    _write_series(origin, f"CT COLONOGRAPHY/{SUBJECT}.0002/01-01-2000-1-CTC-77/4.000000-Prone-79")


def _write_series(origin: Path, folder: str) -> None:
    volume = nib.load(WHOLE.write_image(origin.parent / "volume.nii"))
    write_dicom_series(origin / folder, np.asarray(volume.dataobj), volume.affine)


def test_every_source_is_found_and_keeps_the_patients_of_its_owner(prepared: Prepared):
    assert {key: row["patient"] for key, row in prepared.rows.items()} == {
        f"COLONOG-{SUBJECT}.0001": f"ct-colonography:{SUBJECT}.0001",
        f"COLONOG-{SUBJECT}.0002": f"ct-colonography:{SUBJECT}.0002",
        "HNSCC-HN_P001": "hnscc-3dct-rt:HN_P001",
        "MSD-T03-7": "lits:7",
        "COVID19-A-0003": "ct-covid-19:A-0003",
    }


def test_every_vertebra_lies_at_its_place(prepared: Prepared):
    for key in set(prepared.rows) - {"MSD-T03-7"}:
        assert_row_shows(prepared.rows[key], WHOLE, SPINE)


def test_vertebrae_outside_the_scan_are_absent(prepared: Prepared):
    present = {name: value for name, value in LOIN.items() if name != "L6 vertebra"}
    assert_row_shows(prepared.rows["MSD-T03-7"], LOWER, present, set(SPINE) - set(present))


def test_a_mask_without_its_series_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == [f"COLONOG-{SUBJECT}.0003"]


def test_a_missing_list_of_series_is_named(tmp_path: Path):
    with pytest.raises(VividMedError, match=r"Path\.csv"):
        list(get_adapter("ctspine1k").cases(tmp_path))
