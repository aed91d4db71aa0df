"""VinDr-CXR: chest radiographs with boxes of local findings, by three readers (train) or their consensus (test)."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, Split, box_2d, files, read_table, register
from vividmed.data.raw.consensus import Rectangle, consensus_boxes

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

    def cases(self, origin: Path) -> Iterator[Case]:
        for split in ("train", "test"):
            yield from _cases(origin, split)


def _cases(origin: Path, split: Split) -> Iterator[Case]:
    labels = read_table(origin / f"annotations/image_labels_{split}.csv", "image_id", *_FINDINGS)
    drawn = read_table(origin / f"annotations/annotations_{split}.csv", "image_id", "class_name", *_CORNERS)
    ticked: dict[str, set[str]] = defaultdict(set)
    for row in labels:
        ticked[row["image_id"]] |= {name for name in _FINDINGS if float(row[name] or 0)}
    boxes: dict[tuple[str, str], dict[str, list[Rectangle]]] = defaultdict(lambda: defaultdict(list))
    for row in drawn:
        if row["class_name"] in _FINDINGS:
            x0, y0, x1, y1 = (float(row[corner]) for corner in _CORNERS)
            boxes[row["image_id"], row["class_name"]][row.get("rad_id", _ONE_READER)].append((x0, y0, x1, y1))
    for path in files(origin, f"{split}/*.dicom"):
        key = path.stem
        yield Case(
            id=key,
            patient=key,  # one image a patient
            split=split,
            images=(ImageFile(path=path, modality="X-ray"),),
            boxes=tuple(
                (target, box_2d(*box))
                for name, target in _FINDINGS.items()
                for box in consensus_boxes(boxes.get((key, name), {}))
            ),
            # Ticked by a reader but not drawn: neither present nor absent.
            absent=tuple(
                target
                for name, target in _FINDINGS.items()
                if key in ticked and name not in ticked[key] and (key, name) not in boxes
            ),
        )
