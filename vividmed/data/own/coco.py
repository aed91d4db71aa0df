"""Cases of a COCO file: images with boxes, polygons or run-length encoded masks of categories."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.data.own.cells import key_text, number_text
from vividmed.data.own.image_paths import ImageFolder, stem
from vividmed.data.own.listing import OwnListing
from vividmed.data.own.modalities import modality_name
from vividmed.data.own.target_names import TargetNames
from vividmed.data.raw.annotation import DrawnMasks
from vividmed.data.raw.boxes import box_2d
from vividmed.data.raw.case import Case, Failed, ImageFile, Listed, Split
from vividmed.data.raw.documents import read_json
from vividmed.data.raw.splits import official_split
from vividmed.data.raw.tables import finite
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_PATIENT = ("patient_id", "patient", "subject_id", "subject", "PatientID", "study_id")
_PREVIEWED = 3

Segmentation = tuple[Any, ...]
"""Polygons, as tuples of x and y in turn, or ``("rle", height, width, counts)``."""


@dataclass(frozen=True)
class _Found:
    """One annotation: target, box (x, y, w, h) or None, segmentation or None, whether it is a crowd, and its place.

    Annotations that differ only in their place are equal.
    """

    target: str
    box: tuple[float, float, float, float] | None
    segmentation: Segmentation | None
    crowd: bool
    where: str = field(compare=False)


def read_coco_listing(
    path: Path,
    images: Path | None = None,
    *,
    renames: Mapping[str, str] | None = None,
    modality: str = "",
    partly_annotated: bool = False,
) -> OwnListing:
    """Read a COCO file.

    Annotations with a segmentation become masks, the others boxes. If an image has both for one category, all of them
    become boxes. A segmentation that is only the rectangle of its box is a box. Categories without an annotation in an
    image are absent there, unless the image or the arguments say that it was not searched for all of them.

    Args:
        path: JSON file with ``images``, ``annotations`` and ``categories``.
        images: folder of the images; that of the file by default.
        renames: category to target, where the category's own name is not in the taxonomy.
        modality: of the images.
        partly_annotated: whether more may be in an image than was annotated, so that nothing is absent.

    Raises:
        VividMedError: the file is missing or malformed, or no image can be used.
    """
    content = read_json(path)
    folder = ImageFolder(images if images is not None else path.absolute().parent)
    if not folder.folder.is_dir():
        raise VividMedError(
            f"--images {folder.folder}: no such folder; give the folder that contains the images"
        )
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise VividMedError(
                f"{path}: field {name!r} is missing; give a COCO file with images, annotations and categories"
            )
    names = TargetNames(renames)
    categories = _categories(content["categories"], names, path)
    by_image: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"], 1):
        if not isinstance(annotation, Mapping) or "image_id" not in annotation:
            raise VividMedError(f"{path}: annotation {number} names no image; add 'image_id'")
        by_image[number_text(annotation["image_id"])].append((number, annotation))
    given = [number_text(image.get("id")) for image in content["images"] if isinstance(image, Mapping)]
    known = set(given)
    if repeated := [key for key, number in Counter(given).items() if key and number > 1]:
        raise VividMedError(
            f"{path}: {len(repeated)} ids of images, such as {repeated[0]}, occur more than once; make them unique"
        )
    stray = [key for key in by_image if key not in known]
    if stray and len(stray) == len(by_image):
        raise VividMedError(
            f"{path}: {len(stray)} image_id of annotations, such as {stray[0]}, belong to no image; add the images"
        )
    name_modality = modality_name(modality) if modality else ""
    cases: list[Listed] = []
    taken: set[str] = set()
    owners: dict[Path, int] = {}
    for number, image in enumerate(content["images"], 1):
        key = f"image {number}"
        try:
            if not isinstance(image, Mapping) or "id" not in image or not key_text(image.get("file_name")):
                raise VividMedError("needs an 'id' and a 'file_name'; add them")
            file = folder.find(key_text(image["file_name"]))
            if (earlier := owners.setdefault(file, number)) != number:
                raise VividMedError(f"its file is that of image {earlier} too; join their annotations")
            key = _unique(stem(file), taken)
            annotations = [
                _annotation(n, a, image, categories) for n, a in by_image[number_text(image["id"])]
            ]
            cases.append(_case(key, file, image, annotations, categories, name_modality, partly_annotated))
        except VividMedError as error:
            cases.append(Failed(key, f"{path.name}: image {number}: {error}"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            cases.append(
                Failed(
                    key,
                    f"{path.name}: image {number} or one of its annotations is malformed ({type(error).__name__}: {error}); "
                    "write it again",
                )
            )
    usable = [case for case in cases if isinstance(case, Case)]
    if not usable:
        reason = cases[0].reason if cases and isinstance(cases[0], Failed) else "it names none"
        raise VividMedError(f"{path}: no image can be used; the first one: {reason}")
    return OwnListing(
        row_kind="localization",
        origin=folder.folder.absolute(),
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys(i.modality for case in usable for i in case.images if i.modality)),
        has_splits=any(case.split for case in usable),
        notes=tuple(_notes(stray, by_image)),
        overview=tuple(_overview(path, usable, content, categories)),
        preview=tuple(_preview(usable)),
        has_patients=any(_patient(image) for image in content["images"]),
    )


def _categories(entries: Sequence[Any], names: TargetNames, path: Path) -> dict[str, str | None]:
    """Id of each category to its target; None if it is left out."""
    found: dict[str, str | None] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping) or "id" not in entry or not key_text(entry.get("name")):
            raise VividMedError(f"{path}: category {number} needs an 'id' and a 'name'")
        key, target = number_text(entry["id"]), names.find(str(entry["name"]))
        if found.setdefault(key, target) != target:
            raise VividMedError(f"{path}: category id {key} occurs with different names; make ids unique")
    names.check_used((str(entry["name"]) for entry in entries), str(path))
    if not any(found.values()):
        raise VividMedError(f"{path}: has no category to use; name the categories")
    return found


def _annotation(
    number: int, annotation: Mapping[str, Any], image: Mapping[str, Any], categories: Mapping[str, str | None]
) -> _Found | None:
    """One annotation; None if its category is left out."""
    where = f"annotation {annotation.get('id', number)}"
    category = number_text(annotation.get("category_id"))
    if category not in categories:
        raise VividMedError(
            f"{where}: category_id {annotation.get('category_id')!r} is not among the categories; add it"
        )
    target = categories[category]
    if target is None:
        return None
    box = annotation.get("bbox")
    corners = None
    if box:
        if len(box) != 4:
            raise VividMedError(f"{where}: bbox has {len(box)} numbers; give x, y, width and height")
        x, y, width, height = (finite(value, f"{where}: bbox") for value in box)
        corners = (x, y, width, height)
    shape = _segmentation(annotation.get("segmentation"), image, where)
    if shape is not None and corners is not None and _is_rectangle(shape, corners):
        shape = None
    if shape is None and corners is None:
        raise VividMedError(f"{where}: has neither a box nor a segmentation; draw it or remove it")
    return _Found(target, corners, shape, _is_true(annotation.get("iscrowd")), where)


def _is_true(value: Any) -> bool:
    """Whether a flag is set; flags written as text count too."""
    return key_text(value).casefold() not in ("", "0", "false", "no")


def _segmentation(value: Any, image: Mapping[str, Any], where: str) -> Segmentation | None:
    if not value:
        return None
    if isinstance(value, Mapping):
        size, counts = value.get("size"), value.get("counts")
        if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list | str):
            raise VividMedError(f"{where}: a run-length encoding needs 'size' (height, width) and 'counts'")
        edges = [finite(each, f"{where}: size") for each in size]
        if (
            "height" in image
            and "width" in image
            and edges != [_edge(image, "height"), _edge(image, "width")]
        ):
            raise VividMedError(
                f"{where}: its mask has {edges[0]:g} x {edges[1]:g} pixels, but the image {image['height']} x "
                f"{image['width']}; give the mask of this image"
            )
        if isinstance(counts, list):
            numbers = [finite(count, f"{where}: counts") for count in counts]
            counts = tuple(map(int, numbers))
        return "rle", int(edges[0]), int(edges[1]), counts
    polygons = [value] if isinstance(value[0], int | float) else value
    found = tuple(
        tuple(finite(v, f"{where}: segmentation") for v in polygon) for polygon in polygons if polygon
    )
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in found):
        raise VividMedError(f"{where}: a polygon needs an x and a y for each of at least three corners")
    return found or None


def _is_rectangle(shape: Segmentation, box: tuple[float, float, float, float]) -> bool:
    """Whether a polygon is only its own box, as some programs write for every box."""
    if shape[0] == "rle" or len(shape) != 1 or len(shape[0]) not in (8, 10):
        return False
    x, y, width, height = box
    corners = {(round(a, 1), round(b, 1)) for a, b in zip(shape[0][::2], shape[0][1::2], strict=True)}
    return corners == {(round(a, 1), round(b, 1)) for a in (x, x + width) for b in (y, y + height)}


def _case(
    key: str,
    file: Path,
    image: Mapping[str, Any],
    annotations: Iterable[_Found | None],
    categories: Mapping[str, str | None],
    modality: str,
    partly_annotated: bool,
) -> Case:
    found = list(dict.fromkeys(annotation for annotation in annotations if annotation is not None))
    crowds = {annotation.target for annotation in found if annotation.crowd}
    single = [annotation for annotation in found if not annotation.crowd]
    boxed = {annotation.target for annotation in single if annotation.segmentation is None}
    masks = tuple(
        (a.target, a.segmentation, a.where)
        for a in single
        if a.target not in boxed and a.segmentation is not None
    )
    boxes = []
    for annotation in (a for a in single if a.target in boxed):
        if annotation.box is None:
            raise VividMedError(
                f"{annotation.target!r} has boxes and masks without a box; give every annotation a box"
            )
        x, y, width, height = annotation.box
        boxes.append((annotation.target, box_2d(x, y, x + width, y + height, where=annotation.target)))
    searched = {target for target in categories.values() if target}
    if "neg_category_ids" in image:  # LVIS: only these were searched for and not found
        searched = {categories.get(number_text(c)) for c in image["neg_category_ids"]} - {None}  # type: ignore[assignment]
    not_complete = {
        categories.get(number_text(c)) for c in image.get("not_exhaustive_category_ids", ())
    } | crowds
    present = {annotation.target for annotation in single}
    size = (_edge(image, "height"), _edge(image, "width")) if "height" in image and "width" in image else None
    if size is None and masks:
        raise VividMedError("needs 'height' and 'width', because masks are drawn on it")
    text = key_text(image.get("modality"))
    drawn = DrawnMasks(
        tuple(dict.fromkeys(target for target, _, _ in masks)),
        partial(_draw, masks),
        (),
        partial=frozenset(present),
    )
    return Case(
        id=key,
        patient=_patient(image) or key,
        split=_split(image),
        images=(ImageFile(path=file, modality=modality_name(text) if text else modality),),
        annotations=(drawn,) if masks else (),
        boxes=tuple(boxes),
        boxes_drawn_on=size,
        absent=() if partly_annotated else tuple(sorted(searched - present - crowds)),
        incomplete=tuple(sorted(present if partly_annotated else present & not_complete)),
    )


def _edge(image: Mapping[str, Any], name: str) -> int:
    return int(finite(image[name], f"its {name}"))


def _draw(
    masks: tuple[tuple[str, Segmentation, str], ...], image: MedicalImage
) -> Iterator[tuple[str, np.ndarray]]:
    """Masks of one image, one per annotation."""
    depth, height, width = image.size
    if depth != 1:
        raise VividMedError(f"{image.source}: is a volume; COCO files annotate 2D images")
    for target, shape, where in masks:
        if shape[0] == "rle" and shape[1:3] != (height, width):
            raise VividMedError(
                f"{image.source}: the masks were drawn on {shape[1]} x {shape[2]} pixels (height x width), but the image "
                f"has {height} x {width}; give the original image"
            )
        try:
            mask = decode_segmentation(shape, height, width)
        except VividMedError as error:
            raise VividMedError(f"{image.source}: {where}: {error}") from error
        if not mask.any():
            raise VividMedError(
                f"{image.source}: {where}: its segmentation covers no pixel of the image; correct or remove it"
            )
        yield target, mask[None]


def decode_segmentation(shape: Segmentation, height: int, width: int) -> np.ndarray:
    """(H, W) bool mask of polygons or of a run-length encoding, by the rules of COCO.

    Raises:
        VividMedError: faster-coco-eval is not installed, or the encoding is malformed.
    """
    if shape[0] == "rle" and not isinstance(shape[3], str):
        counts = np.asarray(shape[3])
        if counts.min(initial=0) < 0:
            raise VividMedError("a run-length encoding has a negative count; write it again")
        if counts.sum() != height * width:
            raise VividMedError(
                f"a run-length encoding covers {counts.sum()} of {height * width} pixels; write it again"
            )
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return values.reshape((width, height)).T
    try:
        from faster_coco_eval.core import mask as coco
    except ImportError as error:
        raise VividMedError(
            'polygons and compressed masks need faster-coco-eval; run: pip install "vividmed[prepare]"'
        ) from error
    if shape[0] == "rle":
        encoded: Any = {"size": [height, width], "counts": shape[3].encode()}
    else:
        encoded = coco.merge(coco.frPyObjects([list(polygon) for polygon in shape], height, width))
    try:
        return np.asarray(coco.decode(encoded), bool)
    except (ValueError, RuntimeError) as error:
        raise VividMedError(f"a run-length encoding is malformed ({error}); write it again") from error


def _patient(image: Any) -> str:
    fields = image if isinstance(image, Mapping) else {}
    return next((text for name in _PATIENT if (text := key_text(fields.get(name)))), "")


def _split(image: Mapping[str, Any]) -> Split | None:
    text = key_text(image.get("split"))
    split = official_split(text) if text else None
    if text and split is None:
        raise VividMedError(f"has the split {text!r}; write train, validation or test")
    return split


def _unique(name: str, taken: set[str]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique)
    return unique


def _overview(
    path: Path, cases: Sequence[Case], content: Mapping[str, Any], categories: Mapping[str, str | None]
) -> list[str]:
    lines = [
        f"{path}: {len(content['images'])} images, {len(content['annotations'])} annotations, {len(cases)} images can be used"
    ]
    for entry in content["categories"]:
        number = sum(
            isinstance(a, Mapping) and number_text(a.get("category_id")) == number_text(entry["id"])
            for a in content["annotations"]
        )
        lines.append(
            f"  category   {entry['name']!r} ({number}): {categories[number_text(entry['id'])] or 'not used'}"
        )
    return lines


def _notes(stray: Sequence[str], by_image: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    if stray:
        number = sum(len(by_image[key]) for key in stray)
        yield (
            f"{number} annotation{'s are' if number > 1 else ' is'} about images that the file does not list, such as the "
            f"image_id {stray[0]}, and not used"
        )


def _preview(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases[:_PREVIEWED]:
        drawn = [t for a in case.annotations for t in a.targets] + [target for target, _ in case.boxes]
        yield f"{case.images[0].path.name}: {', '.join(dict.fromkeys(drawn)) or 'nothing annotated'}"
