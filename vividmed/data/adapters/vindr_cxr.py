"""VinDr-CXR: chest radiographs with boxes of local findings, by three readers (train) or their consensus (test)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Split,
    TableRow,
    box_2d,
    each_case,
    files,
    number,
    read_table,
    register,
)
from vividmed.data.raw.consensus import Rectangle, consensus_boxes
from vividmed.errors import VividMedError

_FINDINGS = {
    "Aortic enlargement": "aortic enlargement",
    "Atelectasis": "atelectasis",
    "Calcification": "calcification",
    "Cardiomegaly": "cardiomegaly",
    "Clavicle fracture": "clavicle fracture",
    "Consolidation": "pulmonary consolidation",
    "Edema": "pulmonary edema",
    "Emphysema": "pulmonary emphysema",
    "Enlarged PA": "pulmonary artery enlargement",
    "ILD": "interstitial lung disease",
    "Infiltration": "pulmonary infiltrate",
    "Lung Opacity": "pulmonary opacification",
    "Lung cavity": "pulmonary cavity",
    "Lung cyst": "pulmonary cyst",
    "Mediastinal shift": "mediastinal shift",
    "Nodule/Mass": "lung nodule",
    "Pleural effusion": "pleural effusion",
    "Pleural thickening": "pleural thickening",
    "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "pulmonary fibrosis",
    "Rib fracture": "rib fracture",
}
_NOT_USED = frozenset(
    {
        "No finding",
        "Other lesion",
        "COPD",
        "Lung tumor",
        "Pneumonia",
        "Tuberculosis",
        "Other disease",
        "Other diseases",
    }
)
"""Labels of whole images, and lesions of no particular kind."""
_PARTS: tuple[Split, ...] = ("train", "test")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_ONE_READER = "consensus"


@register
class VinDrCXR(Adapter):
    name = "vindr-cxr"
    title = "VinDr-CXR"
    modalities = ("X-ray",)
    targets = tuple(_FINDINGS.values())
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    access = "credentialed"
    redistribute = "no"
    terms = (
        "PhysioNet gives the images to credentialed users who signed its agreement; they must not be shared."
    )
    homepage = "https://physionet.org/content/vindr-cxr/1.0.0/"
    citation = (
        "Nguyen et al. VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations. Scientific Data 9, "
        "2022."
    )
    layout = {
        "train/*.dicom": 15000,
        "test/*.dicom": 3000,
        "annotations/annotations_train.csv": 1,
        "annotations/annotations_test.csv": 1,
        "annotations/image_labels_train.csv": 1,
        "annotations/image_labels_test.csv": 1,
    }
    gigabytes = 192.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        for split in _PARTS:
            labels = read_table(origin / f"annotations/image_labels_{split}.csv", "image_id", *_FINDINGS)
            drawn = read_table(
                origin / f"annotations/annotations_{split}.csv", "image_id", "class_name", *_CORNERS
            )
            make = partial(_case, split=split, labels=_by_image(labels), drawn=_by_image(drawn))
            yield from each_case(((path.stem, path) for path in files(origin, f"{split}/*.dicom")), make)


def _by_image(rows: list[TableRow]) -> dict[str, list[TableRow]]:
    grouped: dict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        grouped[row["image_id"]].append(row)
    return grouped


def _case(
    path: Path,
    *,
    split: Split,
    labels: Mapping[str, list[TableRow]],
    drawn: Mapping[str, list[TableRow]],
) -> Case:
    key = path.stem
    boxes = _boxes_by_reader(drawn.get(key, []))
    readings = labels.get(key, [])
    ticked = {name for row in readings for name in _FINDINGS if row[name] and number(row, name)}
    return Case(
        id=key,
        patient=key,  # one image per patient
        split=split,
        images=(ImageFile(path=path, modality="X-ray"),),
        boxes=tuple(
            (target, box_2d(*box, where=f"{key}: {name}"))
            for name, target in _FINDINGS.items()
            for box in consensus_boxes(boxes.get(name, {}))
        ),
        # Ticked by a reader but not drawn: neither present nor absent.
        absent=tuple(
            target
            for name, target in _FINDINGS.items()
            if readings and name not in ticked and name not in boxes
        ),
    )


def _boxes_by_reader(rows: list[TableRow]) -> dict[str, dict[str, list[Rectangle]]]:
    """Finding to the boxes of each reader."""
    boxes: dict[str, dict[str, list[Rectangle]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name = row["class_name"]
        if name in _FINDINGS:
            x0, y0, x1, y1 = (number(row, corner) for corner in _CORNERS)
            box_2d(x0, y0, x1, y1, where=row.where)  # checks the corners before they are averaged
            boxes[name][row.get("rad_id", _ONE_READER)].append((x0, y0, x1, y1))
        elif name not in _NOT_USED:
            raise VividMedError(
                f"{row.where}: class_name {name!r} is unknown; correct it or leave the row out"
            )
    return boxes
