"""Prostate158: zones of the prostate and cancer in T2-weighted MRI."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Annotation,
    Case,
    ImageFile,
    LabelMap,
    Listed,
    Split,
    TableRow,
    below,
    each_case,
    read_table,
    register,
)

_ZONES = {"transition zone of prostate": 1, "peripheral zone of prostate": 2}
_CANCER = "prostate cancer"
_CANCER_VALUE = 3
_TABLES: tuple[tuple[str, Split], ...] = (("train.csv", "train"), ("valid.csv", "validation"))
_COLUMNS = ("ID", "t2", "t2_anatomy_reader1", "t2_tumor_reader1")


@register
class Prostate158(Adapter):
    name = "prostate158"
    title = "Prostate158"
    modalities = ("T2 MRI",)
    targets = (*_ZONES, _CANCER)
    licence = "CC BY 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://prostate158.grand-challenge.org/"
    citation = (
        "Adams et al. Prostate158 - An expert-annotated 3T MRI dataset and algorithm for prostate cancer detection. "
        "Computers in Biology and Medicine 148, 2022."
    )
    layout = {"train.csv": 1, "valid.csv": 1, "train/*/t2.nii.gz": 139}
    gigabytes = 2.5
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        for table, split in _TABLES:
            rows = read_table(origin / table, *_COLUMNS)
            yield from each_case(
                ((row["ID"], row) for row in rows), partial(_case, origin=origin, split=split)
            )


def _case(row: TableRow, *, origin: Path, split: Split) -> Case:
    annotations: list[Annotation] = [LabelMap(below(origin, row["t2_anatomy_reader1"]), _ZONES)]
    if row["t2_tumor_reader1"]:
        drawn = below(origin, row["t2_tumor_reader1"])
        annotations.append(LabelMap(drawn, {_CANCER: _CANCER_VALUE}, instances=frozenset({_CANCER})))
    return Case(
        id=row["ID"],
        patient=row["ID"],
        split=split,
        images=(ImageFile(path=below(origin, row["t2"]), modality="T2 MRI"),),
        annotations=tuple(annotations),
        # Every study was read for cancer; a study without a lesion has no file.
        absent=() if row["t2_tumor_reader1"] else (_CANCER,),
    )
