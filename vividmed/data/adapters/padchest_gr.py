"""PadChest-GR: chest radiographs with reports in which every sentence on a finding has its own boxes.

The origin contains the report file, ``master_table.csv`` (packed or not), and the image archive, joined from its parts
and unpacked below ``Padchest_GR_files``.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    TableRow,
    below,
    box_2d,
    each_case,
    files,
    numbered,
    official_split,
    read_table,
    register,
)
from vividmed.data.masks import Box
from vividmed.data.raw.case import clean_id
from vividmed.data.raw.documents import read_records
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.raw.tables import finite
from vividmed.data.taxonomy import Taxonomy

_ANY_FINDING = "abnormality"
# Labels that the taxonomy names otherwise or has only in a more general form.
_LABELS = {
    "alveolar pattern": "pulmonary opacification",
    "aortic elongation": "aortic tortuosity",
    "apical pleural thickening": "pleural thickening",
    "artificial heart valve": "support device",
    "callus rib fracture": "rib fracture",
    "catheter": "support device",
    "cavitation": "pulmonary cavity",
    "central venous catheter": "support device",
    "central venous catheter via jugular vein": "support device",
    "central venous catheter via subclavian vein": "support device",
    "chest drain tube": "support device",
    "dual chamber device": "support device",
    "endotracheal tube": "support device",
    "ground glass pattern": "ground-glass opacity",
    "infiltrates": "pulmonary infiltrate",
    "laminar atelectasis": "atelectasis",
    "lobar atelectasis": "atelectasis",
    "loculated pleural effusion": "pleural effusion",
    "mediastinal enlargement": "widened mediastinum",
    "metal": "support device",
    "multiple nodules": "lung nodule",
    "nodule": "lung nodule",
    "nsg tube": "support device",
    "osteosynthesis material": "support device",
    "pacemaker": "support device",
    "pulmonary mass": "lung lesion",
    "single chamber device": "support device",
    "superior mediastinal enlargement": "widened mediastinum",
    "suture material": "support device",
    "tracheostomy tube": "support device",
}


@register
class PadChestGR(Adapter):
    name = "padchest-gr"
    title = "PadChest-GR"
    row_kind = "grounded_report"
    modalities = ("X-ray",)
    licence = "BIMCV research use agreement"
    access = "registered"
    redistribute = "no"
    terms = "BIMCV gives the data to applicants who sign its agreement; they must not be passed on."
    homepage = "https://bimcv.cipf.es/bimcv-projects/padchest-gr/"
    citation = (
        "Castro et al. PadChest-GR: A Bilingual Chest X-ray Dataset for Grounded Radiology Report Generation. NEJM AI "
        "2, 2025."
    )
    layout = {"grounded_reports_20240819.json": 1, "master_table.csv": 1, "Padchest_GR_files/**/*.png": 4555}
    gigabytes = 36.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        table = read_table(origin / "master_table.csv", "StudyID", "PatientID", "split")
        reports = origin / "grounded_reports_20240819.json"
        records = read_records(reports, "StudyID", "ImageID", "findings")
        make = partial(
            _case,
            folder=origin / "Padchest_GR_files",
            images={path.name: path for path in files(origin, "Padchest_GR_files/**/*.png")},
            studies={row["StudyID"]: row for row in table},
            where=str(reports),
        )
        yield from each_case(((clean_id(record["StudyID"]), record) for record in records), make)


def _case(
    record: Mapping[str, Any],
    *,
    folder: Path,
    images: Mapping[str, Path],
    studies: Mapping[str, TableRow],
    where: str,
) -> Case | Skipped:
    key, image = clean_id(record["StudyID"]), clean_id(record["ImageID"])
    if key not in studies:
        return Skipped(key, "master_table.csv does not list it")
    path = images.get(image) or below(folder, image)
    size = _picture_size(path)
    sentences: list[tuple[str, list[str]]] = []
    boxes: list[tuple[str, Box]] = []
    for index, finding in enumerate(record["findings"], 1):
        name = numbered(_target(finding.get("labels") or []), index)
        # Boxes are fractions of the size; without a size the image cannot be read, and the case fails because of that.
        places = (finding.get("boxes") or []) if finding.get("abnormal") and size else []
        boxes += [
            (name, _box(corners, size, f"{where}: finding {index} of {key}")) for corners in places if size
        ]
        sentences.append((finding.get("sentence_en"), [name] if places else []))
    report, phrases = mark_sentences(sentences)
    if not report:
        return Skipped(key, "its report has no findings")
    named = {name for names in phrases for name in names}
    return Case(
        id=key,
        patient=studies[key]["PatientID"],
        split=official_split(studies[key]["split"]),
        images=(ImageFile(path=path, modality="X-ray"),),
        report=f"Findings: {report}",
        phrases=phrases,
        boxes=tuple((name, box) for name, box in boxes if name in named),
    )


def _target(labels: list[str]) -> str:
    """The first label that is in the taxonomy, else the target of anything abnormal."""
    taxonomy = Taxonomy.load()
    named = (_LABELS.get(label.lower(), label) for label in labels)
    return next((taxonomy[name].name for name in named if name in taxonomy), _ANY_FINDING)


def _box(corners: list[float], size: tuple[int, int], where: str) -> Box:
    width, height = size
    x0, y0, x1, y1 = (finite(corner, f"{where}: a corner of a box") for corner in corners)
    return box_2d(x0 * width, y0 * height, x1 * width, y1 * height, where=where)


def _picture_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header of a picture; None if it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
