"""Measures masks."""

import numpy as np
from scipy import ndimage

from vividmed.triples import Triple

_WHOLE_ML = 10
_ONE_SIDED = 0.85


def extent_mm(mask: np.ndarray, affine: np.ndarray) -> Triple:
    """Extent of a mask in whole millimetres.

    Args:
        mask: (D, H, W) bool, not empty, axes along the patient's.
        affine: 4 x 4, voxel index (x, y, z) to mm.

    Returns:
        Left-right, front-back and head-foot extent of its bounding box.
    """
    z, y, x = (int(np.ptp(indices)) + 1 for indices in np.nonzero(mask))
    scale = np.abs(np.diag(affine)[:3])
    return round(x * scale[0]), round(y * scale[1]), round(z * scale[2])


def is_measurable(mask: np.ndarray) -> bool:
    """Whether a mask is a single connected part that the image does not cut off, so that its extent is meaningful."""
    inside = mask[1:-1, 1:-1, 1:-1]
    return int(inside.sum()) == int(mask.sum()) and ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1


def millilitres(mask: np.ndarray, affine: np.ndarray) -> str:
    """Volume of a mask as text: in whole millilitres, below ten with one decimal."""
    volume = int(mask.sum()) * float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    return f"{volume:.0f}" if volume >= _WHOLE_ML else f"{volume:.1f}"


def side_of(mask: np.ndarray) -> str | None:
    """Side of the patient that contains most of a mask, in an image of the whole width.

    Args:
        mask: (D, H, W) bool, not empty; x runs to the patient's left.

    Returns:
        ``left`` or ``right``; None if the mask lies on both sides.
    """
    columns = mask.sum(axis=(0, 1))
    right = columns[: columns.size // 2].sum() / columns.sum()
    if right >= _ONE_SIDED:
        return "right"
    return "left" if right <= 1 - _ONE_SIDED else None
