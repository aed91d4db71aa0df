"""MS-CXR: phrases of reports with boxes on images of MIMIC-CXR-JPG.

The origin holds the table of MS-CXR in ``MS-CXR`` and, beside it, ``MIMIC-CXR-JPG``.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vividmed.data.adapters.base import Adapter, Case, ImageFile, box_2d, numbered, read_table, register
from vividmed.data.adapters.mimic_cxr import JPG, LICENCE, TERMS, official_splits
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
_FIELDS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h")


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

    def cases(self, origin: Path) -> Iterator[Case]:
        splits = official_splits(origin)
        images: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in read_table(origin / _TABLE, *_FIELDS):
            images[row["dicom_id"]].append(row)
        for dicom, rows in images.items():
            path = PurePosixPath(rows[0]["path"])
            # A phrase has a row for each of its boxes.
            phrases = {key: number for number, key in enumerate(dict.fromkeys(map(_phrase, rows)), 1)}
            names = {key: numbered(_target(key[0]), number) for key, number in phrases.items()}
            report, grounded = mark_sentences((key[1], [name]) for key, name in names.items())
            yield Case(
                id=dicom,
                patient=path.parts[-3],
                split=splits.get(dicom),
                images=(ImageFile(path=origin / JPG / path, modality="X-ray"),),
                report=report,
                phrases=grounded,
                boxes=tuple((names[_phrase(row)], _box(row)) for row in rows),
            )


def _phrase(row: dict[str, str]) -> tuple[str, str]:
    return row["category_name"], row["label_text"]


def _target(category: str) -> str:
    if category not in _FINDINGS:
        raise VividMedError(
            f"{_TABLE}: category {category!r} is unknown; it has {', '.join(_FINDINGS)} in version 1.1.0"
        )
    return _FINDINGS[category]


def _box(row: dict[str, str]) -> tuple[int, int, int, int, int, int]:
    try:
        x, y, width, height = (float(row[name]) for name in "xywh")
    except ValueError as error:
        raise VividMedError(f"{_TABLE}: a box of {row['dicom_id']} is no number ({error})") from error
    return box_2d(x, y, x + width, y + height)
