"""Checks whether what a localizer found agrees with the words of the report and with anatomy.

Right and left are those of the patient. In an oriented volume the affine tells them. A 2D image is taken as an upright
frontal view, as radiologists see it (the patient's right on the left of the image), unless its view says otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from vividmed.data.masks import Box
from vividmed.data.pseudo_labels.localizers import Found
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.raw.report_text import FRONTAL_VIEWS
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

LEAST_ON_SIDE = 0.7
"""Share of a place that lies on the side that it is named for."""
LEAST_INSIDE = 0.5
"""Share of a lesion that lies in its organ, or within the margin around it."""
LEAST_CONTACT = 0.1
"""Share of a lesion's surface that touches its organ."""
MARGIN_MM = 5.0
LEAST_OVERLAP = 0.1
"""IoU of the extents of one target in two views."""
_BOX_OF_ORGAN = 6.0


@dataclass(frozen=True)
class Midline:
    """The plane between right and left.

    Attributes:
        position: where it is, in mm to the right (volumes) or in pixels from the left edge (2D).
        certain: whether structures of the body tell it, and not only the outline of the body.
    """

    position: float
    certain: bool


@cache
def _tables() -> dict[str, Any]:
    text = files("vividmed.data.pseudo_labels").joinpath("organs.json").read_text(encoding="utf-8")
    return json.loads(text)


def organs_of(target: str) -> tuple[str, ...]:
    """Organs that a lesion lies in, any of them; empty if the target is no lesion of an organ."""
    table = _tables()["organs_of_lesions"]
    if target in table:
        return tuple(table[target])
    above = [name for name in table if name in Taxonomy.load().ancestors(target)]
    return tuple(table[above[0]]) if above else ()


def helpers_of(targets: Sequence[str]) -> tuple[str, ...]:
    """Structures to look for in addition, because checks of these targets need them."""
    organs = [organ for target in targets for organ in organs_of(target)]
    return tuple(name for name in dict.fromkeys((*organs, *_MIDDLE)) if name not in targets)


_PAIRS = (("left lung", "right lung"), ("left kidney", "right kidney"), ("left hip bone", "right hip bone"))
_MIDDLE = ("vertebra", "spinal cord", "sternum", "left lung", "right lung", "left kidney", "right kidney")


def midline(image: MedicalImage, found: Mapping[str, MaskPatch]) -> Midline:
    """Estimate the plane between right and left.

    Args:
        image: the image.
        found: masks by target.
    """
    for name in ("spinal cord", "vertebra", "sternum"):
        if name in found:
            return Midline(float(_positions(image, found[name]).mean()), True)
    for left, right in _PAIRS:
        if left in found and right in found:
            centres = [float(_positions(image, found[name]).mean()) for name in (left, right)]
            return Midline(sum(centres) / 2, True)
    if not image.oriented:
        return Midline(image.size[2] / 2, False)
    values = image.array[0]
    body = values > np.percentile(values, 5) + 0.2 * (np.percentile(values, 99) - np.percentile(values, 5))
    if not body.any():
        body = np.ones(image.size, dtype=bool)
    x = np.flatnonzero(body.any(axis=(0, 1)))
    patch = MaskPatch("", (0, 0, int(x[0])), body[:, :, x[0] : x[-1] + 1])
    return Midline(float(np.median(_positions(image, patch))), False)


def share_on_side(image: MedicalImage, place: Found, side: str, middle: Midline) -> float:
    """Share of a place that lies on the patient's left or right."""
    if place.patch is not None:
        positions = _positions(image, place.patch)
    else:
        assert place.box is not None
        positions = _positions(image, _box_patch(place.box))
    on_right = positions > middle.position if image.oriented else positions < middle.position
    share = float(on_right.mean())
    return share if side == "right" else 1 - share


def has_sides(image: MedicalImage, plane: str) -> bool:
    """Whether right and left can be told in an image: not in lateral views, and not in 2D slices of unknown plane."""
    if image.oriented:
        return True
    return not plane or plane in FRONTAL_VIEWS or plane in ("axial", "coronal")


def restrict_to_side(image: MedicalImage, place: Found, side: str, middle: Midline) -> Found | None:
    """The parts of a place that lie on a side; None if there is none.

    Parts are the connected components of a mask; one that crosses the middle belongs to the side with more of it.
    """
    if place.patch is None:
        return place if share_on_side(image, place, side, middle) >= 0.5 else None
    labels, count = ndimage.label(place.patch.inside, structure=np.ones((3, 3, 3)))
    kept = np.zeros_like(place.patch.inside)
    for number in range(1, count + 1):
        part = labels == number
        patch = MaskPatch(place.target, place.patch.corner, part)
        if share_on_side(image, Found(place.target, patch=patch), side, middle) >= 0.5:
            kept |= part
    if not kept.any():
        return None
    return Found(place.target, patch=MaskPatch(place.target, place.patch.corner, kept), score=place.score)


def adult_sizes() -> dict[str, tuple[float, float]]:
    """Smallest and largest plausible volume of organs of adults in ml, pathologically small and large ones included."""
    return {name: (low, high) for name, (low, high) in _tables()["sizes_ml"].items()}


def read_sizes(path: Path) -> dict[str, tuple[float, float]]:
    """Plausible volumes of a JSON file, ``{"liver": [400, 5000]}`` in ml; an empty object checks nothing.

    Raises:
        VividMedError: the file is not of that form, or names a target that is not in the taxonomy.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sizes = {
            Taxonomy.load()[name].name: (float(low), float(high)) for name, (low, high) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise VividMedError(
            f"{path}: is not of the form {{'liver': [400, 5000]}}, with volumes in ml ({error})"
        ) from error
    if wrong := next((name for name, (low, high) in sizes.items() if not 0 <= low <= high), None):
        raise VividMedError(f"{path}: the volumes of {wrong!r} are not in order; give the smaller one first")
    return sizes


def size_problem(image: MedicalImage, place: Found, sizes: Mapping[str, tuple[float, float]]) -> str:
    """Why the volume of an organ is not plausible; empty if it is, or if nothing is known about it.

    An organ that touches the border of the image may continue beyond it and is only compared with the largest volume. A box
    contains more than its organ, at most about six times as much.

    Args:
        image: the image.
        place: the organ.
        sizes: smallest and largest volume in ml by target.
    """
    limits = sizes.get(place.target)
    box = place.patch.box if place.patch is not None else place.box
    if limits is None or box is None or not image.oriented or image.size[0] == 1:
        return ""
    voxels = np.subtract(box[3:], box[:3]).prod() if place.patch is None else place.patch.inside.sum()
    if place.patch is None:
        limits = (limits[0], limits[1] * _BOX_OF_ORGAN)
    volume = float(voxels * np.prod(image.spacing) / 1000)
    touches = any(
        low == 0 or high == size for low, high, size in zip(box[:3], box[3:], image.size, strict=True)
    )
    if volume > limits[1] or (volume < limits[0] and not touches):
        return f"implausible size: {volume:.0f} ml, expected {limits[0]:g} to {limits[1]:g} ml"
    return ""


def organ_problem(image: MedicalImage, place: Found, found: Mapping[str, MaskPatch]) -> str:
    """Why a lesion does not lie in its organ; empty if it does, or if the organ was not found.

    Segmentations leave a lesion out of its organ, so it may also border on it: half of it must lie in or near the organ, or
    a tenth of its surface must touch it.
    """
    organs = [found[name] for name in organs_of(place.target) if name in found]
    if not organs or place.patch is None:
        return ""
    reach = max(MARGIN_MM, 1.01 * max(image.spacing))
    margin = [int(np.ceil(reach / mm)) for mm in image.spacing]
    box = place.patch.box
    low = [max(0, edge - extra) for edge, extra in zip(box[:3], margin, strict=True)]
    high = [min(n, edge + extra) for n, edge, extra in zip(image.size, box[3:], margin, strict=True)]
    organ, lesion = (np.zeros([b - a for a, b in zip(low, high, strict=True)], dtype=bool) for _ in range(2))
    for each in organs:
        _paste(organ, low, each)
    _paste(lesion, low, place.patch)
    share = contact = 0.0
    if organ.any():
        near = ndimage.distance_transform_edt(~organ, sampling=image.spacing) <= reach
        share = float(near[lesion].mean())
        surface = ndimage.binary_dilation(lesion) & ~lesion
        contact = float(organ[surface].mean()) if surface.any() else 0.0
    if share < LEAST_INSIDE and contact < LEAST_CONTACT:
        return f"outside its organ: {share:.0%} in or near the {organs[0].target}"
    return ""


def view_problem(one: tuple[MedicalImage, Box, str], other: tuple[MedicalImage, Box, str]) -> str:
    """Why the extents of a target in two images of a study contradict each other; empty if they agree.

    Volumes are compared in mm; radiographs of one direction by their boxes as parts of the image; a frontal and a lateral
    radiograph only by the heights of the boxes, which is all that both show.

    Args:
        one: image, box (z0, y0, x0, z1, y1, x1) around the target, and view.
        other: the same of the other image.
    """
    (image, box, view), (second, second_box, second_view) = one, other
    if image.oriented != second.oriented:
        return ""
    if image.oriented:
        extents = [_extent_mm(image, box), _extent_mm(second, second_box)]
    else:
        axes = (1, 2) if (view and view == second_view) or {view, second_view} <= FRONTAL_VIEWS else (1,)
        extents = [_fractions(image, box, axes), _fractions(second, second_box, axes)]
    overlap = _iou(*extents)
    return "" if overlap >= LEAST_OVERLAP else f"two views disagree: IoU {overlap:.2f}"


def _positions(image: MedicalImage, patch: MaskPatch) -> np.ndarray:
    """Position of each voxel of a patch from left to right: mm to the right, or pixels from the left edge in 2D."""
    z, y, x = np.nonzero(patch.inside)
    z, y, x = (axis + start for axis, start in zip((z, y, x), patch.corner, strict=True))
    if not image.oriented:
        return x + 0.5
    a, b, c, d = image.affine[0]
    return a * x + b * y + c * z + d


def _box_patch(box: Box) -> MaskPatch:
    z0, y0, x0, z1, y1, x1 = box
    return MaskPatch("", (z0, y0, x0), np.ones((z1 - z0, y1 - y0, x1 - x0), dtype=bool))


def _paste(array: np.ndarray, low: Sequence[int], patch: MaskPatch) -> None:
    """Set the voxels of a patch in an array that starts at voxel ``low``."""
    target, source = [], []
    for start, corner, length, size in zip(low, patch.corner, patch.inside.shape, array.shape, strict=True):
        first, last = max(start, corner), min(start + size, corner + length)
        if first >= last:
            return
        target.append(slice(first - start, last - start))
        source.append(slice(first - corner, last - corner))
    array[tuple(target)] |= patch.inside[tuple(source)]


def _extent_mm(image: MedicalImage, box: Box) -> np.ndarray:
    corners = np.array([[x, y, z] for x in box[2::3] for y in box[1::3] for z in box[0::3]]) - 0.5
    placed = corners @ image.affine[:3, :3].T + image.affine[:3, 3]
    return np.stack([placed.min(0), placed.max(0)])


def _fractions(image: MedicalImage, box: Box, axes: Sequence[int]) -> np.ndarray:
    return np.array([[box[start + axis] / image.size[axis] for axis in axes] for start in (0, 3)])


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.clip(np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]), 0, None).prod()
    total = np.ptp(one, axis=0).prod() + np.ptp(other, axis=0).prod() - shared
    return float(shared / total) if total else 0.0
