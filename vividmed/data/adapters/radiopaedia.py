"""Radiopaedia cases of RadFM: series as numbered slices (RP3D), with findings and questions.

The origin contains ``RP3D-Image/raw_images/<case>/<study>/<series>/<number>.jpeg`` and the texts of RadFM.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    each_case,
    register,
    report_turn,
    vqa_turns,
)
from vividmed.data.raw.documents import as_line, read_records
from vividmed.data.raw.report_text import clean_text, view_name
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

    def cases(self, origin: Path) -> Iterator[Listed]:
        for split, name in _TEXTS.items():
            records = read_records(origin / _FOLDER / name, "image_path", "finding")
            items = ((_key(record), record) for record in records if _listed(record["image_path"]))
            yield from each_case(items, partial(_case, origin=origin, split=split))


def _key(record: dict[str, Any]) -> str:
    """``<case>/<study>/<series>`` of every image, whatever folder the paths begin with, joined."""
    return "+".join("/".join(PurePosixPath(str(path)).parts[-3:]) for path in _listed(record["image_path"]))


def _case(record: dict[str, Any], *, origin: Path, split: Split) -> Case | Skipped:
    finding = clean_text(record["finding"])
    if not finding:
        return Skipped(_key(record), "it has no findings")
    series = [_series(path) for path in _listed(record["image_path"])]
    pairs = [pair for pair in _listed(record.get("qa_list")) if isinstance(pair, dict)]
    questions = vqa_turns((pair.get("question"), pair.get("answer")) for pair in pairs)
    return Case(
        id=_key(record),
        patient=series[0].parts[0],
        split=split,
        images=_images(origin, series, record),
        turns=(report_turn(finding), *questions),
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
    if len(parts) < 3 or ".." in parts:
        raise VividMedError(f"{path!r} is not the path of a series; paths end in <case>/<study>/<series>")
    return PurePosixPath(*parts[-3:])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _for_each(value: Any, count: int) -> list[Any]:
    """A value for each image: a single value applies to all; unknown if the numbers do not match."""
    values = _listed(value)
    if len(values) == 1:
        return values * count
    return values if len(values) == count else [None] * count
