"""Chest ImaGenome (silver set): boxes of anatomical regions on frontal images of MIMIC-CXR-JPG.

The origin holds ``chest-imagenome/silver_dataset`` with the unpacked scene graphs and, beside it, ``MIMIC-CXR-JPG``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import Adapter, Case, ImageFile, Skipped, box_2d, files, register
from vividmed.data.adapters.mimic_cxr import JPG, LICENCE, TERMS, image_path, official_splits
from vividmed.data.masks import Box
from vividmed.data.raw.documents import read_json
from vividmed.data.raw.report_text import view_name
from vividmed.errors import VividMedError

_GRAPHS = "chest-imagenome/silver_dataset/scene_graph/*_SceneGraph.json"
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
"""Regions that the taxonomy has. Zones of the lung are not its lobes, and hila and hemidiaphragms lack a side there."""
_CORNERS = ("original_x1", "original_y1", "original_x2", "original_y2")


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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        splits = official_splits(origin)
        for path in files(origin, _GRAPHS):
            dicom = path.name.removesuffix("_SceneGraph.json")
            try:
                graph = read_json(path)
                subject, study = str(graph["patient_id"]), str(graph["study_id"])
                boxes = _boxes(graph["objects"])
            except (KeyError, TypeError, ValueError, VividMedError) as error:
                yield Skipped(dicom, f"its scene graph cannot be used ({error})")
                continue
            if not boxes:
                yield Skipped(dicom, "its scene graph has no region of the taxonomy")
                continue
            file = ImageFile(
                path=image_path(origin, subject, study, dicom),
                modality="X-ray",
                plane=view_name(graph.get("viewpoint")),
            )
            yield Case(id=dicom, patient=f"p{subject}", split=splits.get(dicom), images=(file,), boxes=boxes)


def _boxes(objects: list[dict[str, Any]]) -> tuple[tuple[str, Box], ...]:
    """Boxes in pixels of the original image."""
    return tuple(
        (_REGIONS[item["bbox_name"]], box_2d(*(float(item[corner]) for corner in _CORNERS)))
        for item in objects
        if item["bbox_name"] in _REGIONS
    )
