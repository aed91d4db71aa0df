"""AMOS22: abdominal organs in CT and MRI."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    LabelMap,
    Listed,
    Split,
    column,
    each_case,
    files,
    read_table,
    register,
)

_LABELS = {
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
_PROSTATE_OR_UTERUS = 15
_BY_SEX = {"M": "prostate", "F": "uterus"}
_LAST_CT = 500
_PARTS: tuple[tuple[str, Split], ...] = (("Tr", "train"), ("Va", "validation"))


@register
class Amos22(Adapter):
    name = "amos22"
    title = "AMOS22"
    modalities = ("CT", "MRI")
    targets = (*_LABELS, *_BY_SEX.values())
    licence = "CC BY 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = (
        "The archive is under CC BY 4.0, but the record of the publication names a non-commercial licence; which one "
        "applies must be settled before the scans are shared."
    )
    homepage = "https://amos22.grand-challenge.org/"
    citation = (
        "Ji et al. AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image Segmentation. "
        "NeurIPS 2022 Datasets and Benchmarks."
    )
    layout = {
        "amos22/imagesTr/amos_*.nii.gz": 240,
        "amos22/labelsTr/amos_*.nii.gz": 240,
        "amos22/imagesVa/amos_*.nii.gz": 120,
        "amos22/labelsVa/amos_*.nii.gz": 120,
        "labeled_data_meta*.csv": 1,
    }
    gigabytes = 24.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        table = read_table(files(origin, "labeled_data_meta*.csv")[0], "amos_id", "Patient's Sex")
        sex = {key.zfill(4): value for key, value in column(table, "amos_id", "Patient's Sex").items()}
        for suffix, split in _PARTS:
            labels = files(origin, f"amos22/labels{suffix}/amos_*.nii.gz")
            images = origin / f"amos22/images{suffix}"
            make = partial(_case, images=images, split=split, sex=sex)
            yield from each_case(((label.name.removesuffix(".nii.gz"), label) for label in labels), make)


def _case(label: Path, *, images: Path, split: Split, sex: Mapping[str, str]) -> Case:
    key = label.name.removesuffix(".nii.gz")
    number = key.removeprefix("amos_")
    # Label 15 is one organ or the other; without the patient's sex it says nothing.
    organ = _BY_SEX.get(sex.get(number, ""))
    return Case(
        id=key,
        patient=number,
        split=split,
        images=(ImageFile(path=images / label.name, modality="CT" if int(number) <= _LAST_CT else "MRI"),),
        annotations=(
            LabelMap(label, _LABELS | {organ: _PROSTATE_OR_UTERUS})
            if organ
            else LabelMap(label, _LABELS, ignored=_PROSTATE_OR_UTERUS),
        ),
    )
