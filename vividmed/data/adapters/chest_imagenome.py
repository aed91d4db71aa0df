"""Chest ImaGenome (silver set): boxes of anatomical regions on frontal images of MIMIC-CXR-JPG.

The origin contains ``chest-imagenome/silver_dataset`` with the unpacked scene graphs, and ``MIMIC-CXR-JPG``.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    box_2d,
    each_case,
    files,
    register,
)
from vividmed.data.adapters.mimic_cxr import JPG, LICENCE, TERMS, image_path, official_splits
from vividmed.data.raw.boxes import Boxes
from vividmed.data.raw.case import clean_id
from vividmed.data.raw.documents import read_json
from vividmed.data.raw.report_text import view_name

_GRAPH_ENDING = "_SceneGraph.json"
_GRAPHS = f"chest-imagenome/silver_dataset/scene_graph/*{_GRAPH_ENDING}"
_REGIONS = {
    "right lung": "right lung",
    "left lung": "left lung",
    "right clavicle": "right clavicle",
    "left clavicle": "left clavicle",
    "trachea": "trachea",
    "spine": "spine",
    "mediastinum": "mediastinum",
    "cardiac silhouette": "heart",
    "right atrium": "right atrium",
    "aortic arch": "aortic arch",
    "descending aorta": "descending aorta",
    "svc": "superior vena cava",
}
"""Regions that are in the taxonomy. Zones of the lung are not its lobes, and its hila and hemidiaphragms have no side."""
_CORNERS = ("original_x1", "original_y1", "original_x2", "original_y2")
_PADDED = 0.25
"""The detector saw images padded to squares, so that boxes may exceed the original by a part of its edge."""


@register
class ChestImaGenome(Adapter):
    """Boxes come from a detector, so a region without one proves nothing."""

    name = "chest-imagenome"
    title = "Chest ImaGenome (silver)"
    modalities = ("X-ray",)
    targets = tuple(_REGIONS.values())
    licence = LICENCE
    access = "credentialed"
    redistribute = "no"
    terms = TERMS
    homepage = "https://physionet.org/content/chest-imagenome/"
    citation = "Wu et al. Chest ImaGenome Dataset for Clinical Reasoning. NeurIPS Datasets and Benchmarks Track, 2021."
    layout = {
        _GRAPHS: 243310,
        f"{JPG}/mimic-cxr-2.0.0-split.csv": 1,
        f"{JPG}/files/p1*/p*/s*/*.jpg": None,
    }
    gigabytes = 570.0
    patients = "mimic-cxr"
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        graphs = ((path.name.removesuffix(_GRAPH_ENDING), path) for path in files(origin, _GRAPHS))
        yield from each_case(graphs, partial(_case, origin=origin, splits=official_splits(origin)))


def _case(path: Path, *, origin: Path, splits: Mapping[str, Split]) -> Case | Skipped:
    dicom = path.name.removesuffix(_GRAPH_ENDING)
    graph = read_json(path)
    subject, study = clean_id(graph["patient_id"]), clean_id(graph["study_id"])
    boxes = _boxes(graph["objects"], str(path))
    if not boxes:
        return Skipped(dicom, "its scene graph has no region of the taxonomy")
    file = ImageFile(
        path=image_path(origin, subject, study, dicom),
        modality="X-ray",
        plane=view_name(graph.get("viewpoint")),
    )
    return Case(
        id=dicom,
        patient=f"p{subject}" if subject else "",
        split=splits.get(dicom),
        images=(file,),
        boxes=boxes,
        box_margin=_PADDED,
    )


def _boxes(objects: list[dict[str, Any]], where: str) -> Boxes:
    """Boxes in pixels of the original image."""
    return tuple(
        (
            _REGIONS[item["bbox_name"]],
            box_2d(*(item[corner] for corner in _CORNERS), where=f"{where}: {item['bbox_name']}"),
        )
        for item in objects
        if item["bbox_name"] in _REGIONS
    )
