"""MIMIC-CXR with grounded reports as the published system makes them: tagged phrases and boxes of a detector.

The origin contains ``train.json`` and ``test.json`` with tagged reports, and the images as
``image/p10/p10000032/s50414267/<dicom>.jpg``, each with a ``<dicom>_box.json``: target to corners in pixels.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    Failed,
    ImageFile,
    Listed,
    Skipped,
    Split,
    box_2d,
    each_case,
    register,
)
from vividmed.data.adapters.mimic_cxr import LICENCE, MIMICCXR, TERMS
from vividmed.data.adapters.vindr_cxr import VinDrCXR
from vividmed.data.masks import Box
from vividmed.data.raw.documents import is_file, read_json, read_records
from vividmed.data.raw.report_text import FRONTAL_VIEWS, clean_text, parse_report
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import format_grounded_text

_PARTS: dict[str, Split] = {"train.json": "train", "test.json": "test"}


@register
class MIMICCXRGrounded(Adapter):
    """A row for each frontal image; phrases whose target has no box stay marked but have no label."""

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

    def cases(self, origin: Path) -> Iterator[Listed]:
        for name, split in _PARTS.items():
            records = read_records(origin / name, "image", "plane", "ref_report", "tags")
            for number, record in enumerate(records):
                try:
                    views = dict(zip(map(PurePosixPath, record["image"]), record["plane"], strict=False))
                except TypeError as error:
                    yield Failed(f"{name} {number}", f"its images are not in the published form ({error})")
                    continue
                frontal = [path for path, view in views.items() if view in FRONTAL_VIEWS]
                if not frontal:
                    study = next((path.parent.name for path in views), "") or f"{name} {number}"
                    yield Skipped(study, "it has no frontal image")
                items = ((_dicom(path), (path, views[path], record)) for path in frontal)
                yield from each_case(items, partial(_case, origin=origin, split=split))


def _case(item: tuple[PurePosixPath, str, dict[str, Any]], *, origin: Path, split: Split) -> Case | Skipped:
    path, view, record = item
    dicom = _dicom(path)
    written = parse_report(record["ref_report"])
    if written is not None and not clean_text(written.findings):
        return Skipped(dicom, "its report has no findings")
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
        boxes=tuple((target, box) for target, boxes in located.items() for box in boxes),
    )


def _dicom(path: PurePosixPath) -> str:
    """Name of the original image; records name a converted file in a folder of the same name."""
    return path.name.partition(".")[0]


def _boxes(path: Path) -> dict[str, list[Box]]:
    """Boxes of the targets that have any and are in the taxonomy; tags are free text of a language model."""
    if not is_file(path):
        return {}
    taxonomy = Taxonomy.load()
    try:
        drawn = {
            target: [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes]
            for target, boxes in read_json(path).items()
            if boxes and target in taxonomy
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise VividMedError(f"{path}: not in the form {{target: [[x0, y0, x1, y1]]}} ({error})") from error
    return {
        target: [box_2d(*corners, where=f"{path}: {target}") for corners in boxes]
        for target, boxes in drawn.items()
    }
