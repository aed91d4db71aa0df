"""MS-CXR: phrases of reports with boxes on images of MIMIC-CXR-JPG.

The origin contains the table of MS-CXR in ``MS-CXR``, and ``MIMIC-CXR-JPG``.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Split,
    TableRow,
    below,
    box_2d,
    each_case,
    number,
    numbered,
    read_table,
    register,
)
from vividmed.data.adapters.mimic_cxr import JPG, LICENCE, TERMS, official_splits
from vividmed.data.masks import Box
from vividmed.data.raw.finding_labels import CHEXPERT_TARGETS
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.errors import VividMedError

_TABLE = "MS-CXR/MS_CXR_Local_Alignment_v1.1.0.csv"
_FINDINGS = {
    name: CHEXPERT_TARGETS[name]
    for name in (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Lung Opacity",
        "Pleural Effusion",
        "Pneumonia",
        "Pneumothorax",
    )
}
_SIZE = ("image_height", "image_width")
_FIELDS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", *_SIZE)


@register
class MSCXR(Adapter):
    """Rows follow the splits of MIMIC-CXR, whose images these are."""

    name = "ms-cxr"
    title = "MS-CXR"
    row_kind = "grounded_report"
    modalities = ("X-ray",)
    targets = tuple(_FINDINGS.values())
    licence = LICENCE
    access = "credentialed"
    redistribute = "no"
    terms = TERMS
    homepage = "https://physionet.org/content/ms-cxr/"
    citation = "Boecking et al. Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing. ECCV, 2022."
    layout = {_TABLE: 1, f"{JPG}/mimic-cxr-2.0.0-split.csv": 1, f"{JPG}/files/p1*/p*/s*/*.jpg": None}
    gigabytes = 1.5
    patients = "mimic-cxr"
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        images: dict[str, list[TableRow]] = defaultdict(list)
        for row in read_table(origin / _TABLE, *_FIELDS):
            images[row["dicom_id"]].append(row)
        yield from each_case(images.items(), partial(_case, origin=origin, splits=official_splits(origin)))


def _case(rows: list[TableRow], *, origin: Path, splits: Mapping[str, Split]) -> Case:
    dicom, path = rows[0]["dicom_id"], PurePosixPath(rows[0]["path"])
    # A phrase has one row per box.
    phrases = {key: index for index, key in enumerate(dict.fromkeys(map(_phrase, rows)), 1)}
    names = {key: numbered(_target(key[0]), index) for key, index in phrases.items()}
    report, grounded = mark_sentences((key[1], [name]) for key, name in names.items())
    height, width = (round(number(rows[0], name)) for name in _SIZE)
    return Case(
        id=dicom,
        patient=path.parts[-3],
        split=splits.get(dicom),
        images=(ImageFile(path=below(origin / JPG, path), modality="X-ray"),),
        report=report,
        phrases=grounded,
        boxes=tuple((names[_phrase(row)], _box(row)) for row in rows),
        boxes_drawn_on=(height, width),
    )


def _phrase(row: TableRow) -> tuple[str, str]:
    return row["category_name"], row["label_text"]


def _target(category: str) -> str:
    if category not in _FINDINGS:
        raise VividMedError(
            f"{_TABLE}: category {category!r} is unknown; version 1.1.0 has {', '.join(_FINDINGS)}"
        )
    return _FINDINGS[category]


def _box(row: TableRow) -> Box:
    x, y, width, height = (number(row, name) for name in "xywh")
    return box_2d(x, y, x + width, y + height, where=row.where)
