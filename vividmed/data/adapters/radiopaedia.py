"""Radiopaedia cases of RadFM: series as numbered slices (RP3D), with findings and questions.

The origin holds ``RP3D-Image/raw_images/<case>/<study>/<series>/<number>.jpeg`` and the texts of RadFM.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    QuestionAnswer,
    Skipped,
    Split,
    register,
    report_turn,
)
from vividmed.data.raw.documents import as_line, read_records
from vividmed.data.raw.report_text import view_name
from vividmed.data.raw.slices import read_slices
from vividmed.errors import VividMedError

_TEXTS: dict[Split, str] = {"train": "radiology_train.json", "test": "radiology_test.json"}
_FOLDER = "RadFM_data_csv/data_csv"


@register
class Radiopaedia(Adapter):
    name = "radiopaedia"
    title = "Radiopaedia (RP3D)"
    row_kind = "vision_language"
    modalities = ("CT", "MRI", "X-ray", "ultrasound", "fluoroscopy", "mammography")
    licence = "Radiopaedia licence"
    access = "registered"
    redistribute = "no"
    terms = "Radiopaedia gives its images on request, for the applicant's own use."
    homepage = "https://github.com/chaoyi-wu/RadFM"
    citation = (
        "Wu et al. Towards Generalist Foundation Model for Radiology by Leveraging Web-scale 2D&3D Medical Data. Nature "
        "Communications 16, 2025."
    )
    layout = {f"{_FOLDER}/{name}": 1 for name in _TEXTS.values()} | {"RP3D-Image/raw_images/*/*/*": None}
    gigabytes = 1000.0
    published_split = True
    max_depth = 128
    max_in_plane = 256

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for split, name in _TEXTS.items():
            for record in read_records(origin / _FOLDER / name, "image_path", "finding"):
                series = [_series(path) for path in _listed(record["image_path"])]
                if not series:
                    continue
                key = "+".join(str(path) for path in series)
                finding = as_line(record["finding"])
                if not finding:
                    yield Skipped(key, "has no findings")
                    continue
                yield Case(
                    id=key,
                    patient=series[0].parts[0],
                    split=split,
                    images=_images(origin, series, record),
                    turns=(report_turn(finding), *_questions(record.get("qa_list"))),
                )


def _images(origin: Path, series: list[PurePosixPath], record: dict[str, Any]) -> tuple[ImageFile, ...]:
    modalities = _for_each(record.get("image_modality"), len(series))
    planes = _for_each(record.get("plane_projection"), len(series))
    return tuple(
        ImageFile(
            path=origin / "RP3D-Image/raw_images" / path,
            modality=as_line(modality),
            plane=view_name(as_line(plane)),
            read=read_slices,
        )
        for path, modality, plane in zip(series, modalities, planes, strict=True)
    )


def _series(path: str) -> PurePosixPath:
    """``<case>/<study>/<series>``, whatever folder the path begins with."""
    parts = PurePosixPath(path).parts
    if len(parts) < 3:
        raise VividMedError(f"{path!r} names no series; paths end in <case>/<study>/<series>")
    return PurePosixPath(*parts[-3:])


def _questions(pairs: Any) -> Iterator[QuestionAnswer]:
    for pair in (pair for pair in _listed(pairs) if isinstance(pair, dict)):
        question, answer = (as_line(pair.get(name)) for name in ("question", "answer"))
        if question and answer:
            yield QuestionAnswer("vqa", question, answer)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _for_each(value: Any, count: int) -> list[Any]:
    """A value for each image: one that holds for all is repeated; unknown where the numbers do not fit."""
    values = _listed(value)
    if len(values) == 1:
        return values * count
    return values if len(values) == count else [None] * count
