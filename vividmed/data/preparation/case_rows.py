"""Turns one case of an original data set into rows; everything here is the same for all data sets."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vividmed.data.adapters.base import Adapter
from vividmed.data.image_grids import with_grids
from vividmed.data.preparation.burnt_in import shows_text
from vividmed.data.preparation.encoding import encode_image
from vividmed.data.preparation.intensity import WINDOWS, intensity_limits, to_uint8
from vividmed.data.preparation.labelled_image import LabelledImage
from vividmed.data.preparation.sides import check_sides
from vividmed.data.raw.annotation import Annotation
from vividmed.data.raw.boxes import fit_boxes
from vividmed.data.raw.case import Case, ImageFile
from vividmed.data.raw.grids import same_grid
from vividmed.data.raw.images import read_original
from vividmed.data.raw.instances import remove_specks, split_instances
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.schema import plain_target, validate_row
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

Row = dict[str, Any]

_MARKED = re.compile(r"<p>(.*?)</p>", re.DOTALL)


@dataclass(frozen=True)
class Processing:
    """Choices about the images that are left to the user.

    Attributes:
        window: name of a window in HU for CT images; None for quantiles.
        max_in_plane: largest length of the shorter in-plane edge in voxels; None for the adapter's, which it cannot
            exceed.
    """

    window: str | None = None
    max_in_plane: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window not in WINDOWS:
            raise VividMedError(f"--window {self.window!r} is unknown; use one of {', '.join(WINDOWS)}")
        if self.max_in_plane is not None and self.max_in_plane < 1:
            raise VividMedError(f"--max-in-plane {self.max_in_plane}: give a number of pixels above 0")

    def in_plane_limit(self, adapter: Adapter) -> int:
        """Largest length of the shorter in-plane edge for images of a data set."""
        return min(self.max_in_plane or adapter.max_in_plane, adapter.max_in_plane)


def case_rows(adapter: Adapter, case: Case, processing: Processing) -> tuple[list[Row], list[str]]:
    """Read, standardise and describe one case.

    Images are turned to the canonical orientation of the body, cropped to the foreground, limited in resolution and
    scaled to eight bits; masks and boxes follow.

    Returns:
        Validated rows with encoded images, one per image of a ``localization`` case and one for other cases; and
        warnings of what a user should look at.

    Raises:
        VividMedError: a file cannot be read, or its content contradicts the adapter.
    """
    if not case.images:
        raise VividMedError(f"{case.id}: has no image")
    warnings: list[str] = []
    if adapter.row_kind == "vision_language":
        rows = [_conversation(adapter, case, processing, warnings)]
    elif adapter.row_kind == "grounded_report":
        rows = [_grounded_report(adapter, case, processing, warnings)]
    else:
        rows = _localization(adapter, case, processing, warnings)
    rows = [with_grids(row) for row in rows]
    for row in rows:
        validate_row(adapter.row_kind, row)
    return rows, list(dict.fromkeys(warnings))


def _localization(adapter: Adapter, case: Case, processing: Processing, warnings: list[str]) -> list[Row]:
    rows = []
    for located, image in _located(case, warnings):
        prepared = _standardise(adapter, located, image, processing)
        present = list(
            dict.fromkeys([m.target for m in prepared.masks] + [target for target, _ in prepared.boxes])
        )
        searched = [t for a in case.annotations for t in a.targets if t not in a.partial]
        absent = sorted(set(map(_canonical, (*searched, *case.absent))) - set(present))
        name = case.id if len(case.images) == 1 else f"{case.id}_{_slug(image.modality)}"
        rows.append(
            _common(adapter, case, name, [prepared], [image])
            | {"targets": present, "absent": absent}
            | _places(case, prepared)
        )
    return rows


def _grounded_report(adapter: Adapter, case: Case, processing: Processing, warnings: list[str]) -> Row:
    if len(case.images) != 1 or case.report is None:
        raise VividMedError(f"{case.id}: a grounded report needs its text and exactly one image")
    ((located, image),) = _located(case, warnings)
    prepared = _standardise(adapter, located, image, processing)
    marked = list(_MARKED.finditer(case.report))
    if len(marked) != len(case.phrases):
        raise VividMedError(
            f"{case.id}: the report marks {len(marked)} phrases but targets are given for {len(case.phrases)}"
        )
    named = [target for annotation in case.annotations for target in annotation.targets]
    searched = set(map(_canonical, [*named, *(target for target, _ in case.boxes)]))
    empty = searched - {m.target for m in prepared.masks} - {target for target, _ in prepared.boxes}
    phrases = []
    for number, (match, targets) in enumerate(zip(marked, case.phrases, strict=True)):
        start = match.start() - number * len("<p></p>")
        phrases.append(
            {
                "text": match[1],
                "start": start,
                "end": start + len(match[1]),
                # A predicted mask may be empty; its phrase stays marked, without a label.
                "targets": [name for name in map(_canonical, targets) if name not in empty],
            }
        )
    common = _common(adapter, case, case.id, [prepared], [image])
    return common | {"report": case.report, "phrases": phrases} | _places(case, prepared)


def _conversation(adapter: Adapter, case: Case, processing: Processing, warnings: list[str]) -> Row:
    prepared = []
    for file in case.images:
        image = _read(file, warnings)
        prepared.append(_standardise(adapter, LabelledImage(image), file, processing))
    if not case.turns:
        raise VividMedError(f"{case.id}: has no text")
    # The kinds of all turns, joined; a single name if all turns are of one kind.
    turn_kinds = [turn.turn_kind for turn in case.turns]
    planes = {file.plane for file in case.images}
    messages = [
        {"role": role, "content": text}
        for turn in case.turns
        for role, text in (("user", turn.question), ("assistant", turn.answer))
    ]
    return _common(adapter, case, case.id, prepared, case.images) | {
        "plane": planes.pop() if len(planes) == 1 else None,
        "messages": messages,
        "kind": turn_kinds[0] if len(set(turn_kinds)) == 1 else "+".join(turn_kinds),
    }


def _read(file: ImageFile, warnings: list[str]) -> MedicalImage:
    image = read_original(file.path, channel=file.channel, read=file.read)
    if shows_text(image.array):
        warnings.append(f"{file.path.name}: text seems to be burnt into the image; check it for names")
    return image


def _located(case: Case, warnings: list[str]) -> Iterable[tuple[LabelledImage, ImageFile]]:
    """Each image with the masks and boxes on its grid; annotations are read again only if the grid changes."""
    previous: LabelledImage | None = None
    for file in case.images:
        image = _read(file, warnings)
        if previous is not None and same_grid(previous.image, image):
            located = LabelledImage(image, previous.masks, previous.boxes)
        else:
            masks = [mask for annotation in case.annotations for mask in _masks(annotation, image)]
            masks.sort(key=_first_mention(masks))
            boxes = fit_boxes(
                [(_canonical(target), box) for target, box in case.boxes],
                image.size,
                drawn_on=case.boxes_drawn_on,
                margin=case.box_margin,
                source=image.source,
            )
            located = LabelledImage(image, tuple(masks), boxes)
            warnings += check_sides(image, masks, _taxonomy())
        previous = located
        yield located, file


def _masks(annotation: Annotation, image: MedicalImage) -> Iterable[MaskPatch]:
    for patch in annotation.masks(image):
        named = MaskPatch(_canonical(patch.target), patch.corner, patch.inside)
        if patch.target in annotation.instances:
            yield from split_instances(named)
        elif _taxonomy()[plain_target(named.target)].category == "anatomy":
            yield remove_specks(named)
        else:
            yield named


def _first_mention(masks: list[MaskPatch]) -> Any:
    """Sort key that groups masks by target without changing the order within a target."""
    order = {target: i for i, target in enumerate(dict.fromkeys(mask.target for mask in masks))}
    return lambda mask: order[mask.target]


def _standardise(
    adapter: Adapter, located: LabelledImage, file: ImageFile, processing: Processing
) -> LabelledImage:
    window = processing.window if "CT" in file.modality.split() else None
    limits = intensity_limits(located.image, window=window, exclude_minimum=adapter.exclude_minimum)
    reduced = (
        located.turned()
        .cropped(above=limits[0])
        .limited(max_in_plane=processing.in_plane_limit(adapter), max_depth=adapter.max_depth)
    )
    image = reduced.image
    array = np.rint(image.array) if located.image.array.dtype == np.uint8 else image.array
    bits = array.astype(np.uint8) if located.image.array.dtype == np.uint8 else to_uint8(array, limits)
    return LabelledImage(
        MedicalImage(np.ascontiguousarray(bits), image.affine, image.modality, image.source, image.oriented),
        reduced.masks,
        reduced.boxes,
    )


def _common(
    adapter: Adapter, case: Case, name: str, prepared: list[LabelledImage], files: Iterable[ImageFile]
) -> Row:
    encoded: dict[str, list[Any]] = {"images": [], "volumes": []}
    for number, labelled in enumerate(prepared):
        file_name = _slug(name) if len(prepared) == 1 else f"{_slug(name)}_{number}"
        column = "images" if labelled.image.size[0] == 1 else "volumes"
        encoded[column].append(encode_image(labelled.image.array, labelled.image, file_name))
    return {
        "id": f"{adapter.name}:{name}",
        "patient": adapter.patient_key(case),
        **encoded,
        "modality": ", ".join(dict.fromkeys(file.modality for file in files)) or None,
        "source": adapter.title,
        "licence": adapter.licence,
    }


def _places(case: Case, prepared: LabelledImage) -> Row:
    """The columns of masks, boxes and incomplete targets."""
    located = [mask.target for mask in prepared.masks] + [target for target, _ in prepared.boxes]
    incomplete = set(map(_canonical, case.incomplete))
    return {
        "incomplete": [target for target in dict.fromkeys(located) if target in incomplete],
        "masks": [mask.packed() for mask in prepared.masks],
        "boxes": [{"target": target, "box": list(box)} for target, box in prepared.boxes],
    }


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "image"


def _taxonomy() -> Taxonomy:
    return Taxonomy.load()


def _canonical(target: str) -> str:
    plain = plain_target(target)
    return _taxonomy()[plain].name + target[len(plain) :]
