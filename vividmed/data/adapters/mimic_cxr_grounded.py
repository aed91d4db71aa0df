"""MIMIC-CXR with grounded reports as the published system makes them: tagged phrases and boxes of a detector.

The origin holds ``train.json`` and ``test.json`` with tagged reports, and the images as
``image/p10/p10000032/s50414267/<dicom>.jpg`` with ``<dicom>_box.json`` beside each: target to corners in pixels.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.data.adapters.base import Adapter, Case, ImageFile, Skipped, Split, box_2d, register
from vividmed.data.adapters.mimic_cxr import LICENCE, MIMICCXR, TERMS
from vividmed.data.adapters.vindr_cxr import VinDrCXR
from vividmed.data.raw.documents import read_json, read_records
from vividmed.data.raw.report_text import FRONTAL_VIEWS
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import format_grounded_text

_PARTS: dict[str, Split] = {"train.json": "train", "test.json": "test"}
Boxes = dict[str, list[tuple[float, float, float, float]]]


@register
class MIMICCXRGrounded(Adapter):
    """A row for each frontal image; phrases whose target has no box stay marked and have no label."""

    name = "mimic-cxr-grounded"
    title = "MIMIC-CXR (grounded reports)"
    row_kind = "grounded_report"
    modalities = ("X-ray",)
    targets = VinDrCXR.targets
    licence = LICENCE
    access = "credentialed"
    redistribute = "no"
    terms = TERMS
    homepage = MIMICCXR.homepage
    citation = MIMICCXR.citation
    layout = dict.fromkeys(_PARTS, 1) | {
        "image/p1*/p*/s*/*.jpg": None,
        "image/p1*/p*/s*/*_box.json": None,
    }
    gigabytes = 40.0
    patients = "mimic-cxr"
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for name, split in _PARTS.items():
            for record in read_records(origin / name, "image", "plane", "ref_report", "tags"):
                views = dict(zip(map(PurePosixPath, record["image"]), record["plane"], strict=False))
                frontal = [path for path, view in views.items() if view in FRONTAL_VIEWS]
                if not frontal:
                    yield Skipped(PurePosixPath(record["image"][0]).parts[-2], "has no frontal image")
                for path in frontal:
                    try:
                        yield _case(origin, split, path, views[path], record)
                    except (KeyError, TypeError, VividMedError) as error:
                        yield Skipped(
                            _dicom(path), f"its tags or boxes are not in the published form ({error})"
                        )


def _case(origin: Path, split: Split, path: PurePosixPath, view: str, record: dict[str, Any]) -> Case:
    dicom = _dicom(path)
    folder = origin.joinpath("image", *path.parts[-4:-1])
    located = _boxes(folder / f"{dicom}_box.json")
    tags = sorted(record["tags"], key=lambda tag: tag["start"])
    return Case(
        id=dicom,
        patient=path.parts[-3],
        split=split,
        images=(ImageFile(path=folder / f"{dicom}.jpg", modality="X-ray", plane=view),),
        report=format_grounded_text(record["ref_report"], [(tag["start"], tag["end"]) for tag in tags]),
        phrases=tuple((tag["target"],) if tag["target"] in located else () for tag in tags),
        boxes=tuple((target, box_2d(*corners)) for target, boxes in located.items() for corners in boxes),
    )


def _dicom(path: PurePosixPath) -> str:
    """Name of the original image; records name a converted file in the same folders."""
    return path.name.partition(".")[0]


def _boxes(path: Path) -> Boxes:
    """Boxes of the targets that have any and that the taxonomy knows; tags are free text of a language model."""
    if not path.is_file():
        return {}
    taxonomy = Taxonomy.load()
    try:
        return {
            target: [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes]
            for target, boxes in read_json(path).items()
            if boxes and target in taxonomy
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise VividMedError(f"{path}: not in the form {{target: [[x0, y0, x1, y1]]}} ({error})") from error
