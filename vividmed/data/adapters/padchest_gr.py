"""PadChest-GR: chest radiographs with reports of which every finding sentence has its boxes.

The origin holds the report file, ``master_table.csv`` (packed or not), and the parts of the image archive joined and
unpacked below ``Padchest_GR_files``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Skipped,
    Split,
    box_2d,
    files,
    numbered,
    read_table,
    register,
)
from vividmed.data.masks import Box
from vividmed.data.raw.documents import as_line, read_records
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.taxonomy import Taxonomy

_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_ANY_FINDING = "abnormality"
# Labels that the taxonomy has under another name or only in a more general form.
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        images = {path.name: path for path in files(origin, "Padchest_GR_files/**/*.png")}
        table = read_table(origin / "master_table.csv", "StudyID", "PatientID", "split")
        studies = {row["StudyID"]: row for row in table}
        for record in read_records(
            origin / "grounded_reports_20240819.json", "StudyID", "ImageID", "findings"
        ):
            key, name = str(record["StudyID"]), str(record["ImageID"])
            if key not in studies:
                yield Skipped(key, "master_table.csv does not list it")
                continue
            path = images.get(name, origin / "Padchest_GR_files" / name)
            try:
                yield _case(key, path, record["findings"], studies[key])
            except (AttributeError, TypeError, ValueError) as error:
                yield Skipped(key, f"its findings are not in the published form ({error})")


def _case(key: str, path: Path, findings: list[Mapping[str, Any]], study: Mapping[str, str]) -> Case:
    size = _picture_size(path)
    sentences: list[tuple[str, list[str]]] = []
    boxes: list[tuple[str, Box]] = []
    for number, finding in enumerate(findings, 1):
        name = numbered(_target(finding.get("labels") or []), number)
        # Boxes are fractions of the size; without one the image cannot be read, and the case fails by that.
        places = (finding.get("boxes") or []) if finding.get("abnormal") and size else []
        boxes += [(name, _box(corners, size)) for corners in places if size]
        sentences.append((as_line(finding.get("sentence_en")), [name] if places else []))
    report, phrases = mark_sentences(sentences)
    return Case(
        id=key,
        patient=study["PatientID"],
        split=_SPLITS.get(study["split"]),
        images=(ImageFile(path=path, modality="X-ray"),),
        report=f"Findings: {report}",
        phrases=phrases,
        boxes=tuple(boxes),
    )


def _target(labels: list[str]) -> str:
    """The first label that the taxonomy knows, else that there is something abnormal."""
    taxonomy = Taxonomy.load()
    named = (_LABELS.get(label.lower(), label) for label in labels)
    return next((taxonomy[name].name for name in named if name in taxonomy), _ANY_FINDING)


def _box(corners: list[float], size: tuple[int, int]) -> Box:
    width, height = size
    x0, y0, x1, y1 = corners
    return box_2d(x0 * width, y0 * height, x1 * width, y1 * height)


def _picture_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header of a picture; None where it has none."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, UnidentifiedImageError):
        return None
