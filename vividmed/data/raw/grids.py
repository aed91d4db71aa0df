"""Voxel lattices in the patient: when two of them agree, and how labels are moved from one to the other."""

from pathlib import Path

import numpy as np

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_TOLERANCE = 0.5
"""Voxels by which the headers of one lattice may disagree at the corner where they disagree most."""


def same_grid(one: MedicalImage, other: MedicalImage) -> bool:
    """Whether two images have the same size and place."""
    if one.size != other.size:
        return False
    mapping = np.linalg.inv(one.affine) @ other.affine
    return _error(mapping, np.eye(3), np.zeros(3), one.size) <= _TOLERANCE


def to_grid(
    array: np.ndarray, labels: MedicalImage, image: MedicalImage, *, whole: bool = False
) -> np.ndarray:
    """Move labels to the lattice of the image by flipping, transposing and shifting whole voxels.

    Args:
        array: (D, H, W) labels.
        labels: image whose affine places the labels.
        image: image with the wanted grid.
        whole: whether labels of another extent than the image are an error.

    Returns:
        (D, H, W) array of the image's size, zero where there was no label voxel.

    Raises:
        VividMedError: The lattices differ, a labelled voxel would be lost, or the extents differ although they must not.
    """
    # Index (x, y, z) of the labels -> index of the image.
    mapping = np.linalg.inv(image.affine) @ labels.affine
    turn, shift = np.rint(mapping[:3, :3]), mapping[:3, 3]
    far = np.array([n - 1 for n in array.shape[::-1]])
    offset = np.rint(shift)
    error = _error(mapping, turn, offset, array.shape)
    if error > _TOLERANCE or not np.array_equal(np.abs(turn) @ np.abs(turn).T, np.eye(3)):
        raise VividMedError(
            f"{labels.source}: does not lie on the voxel grid of {Path(image.source).name} (off by up to {error:.1f} "
            "voxels, or rotated); give labels drawn on this image"
        )
    if np.array_equal(turn, np.eye(3)) and not offset.any() and array.shape == image.size:
        return array
    order = [int(np.flatnonzero(row)[0]) for row in turn]
    turned = array.T.transpose(order)
    start = offset + np.minimum(turn @ far, 0)
    turned = turned[tuple(slice(None, None, -1 if turn[i, order[i]] < 0 else 1) for i in range(3))]
    result = np.zeros(image.size[::-1], array.dtype)
    if whole and (turned.shape != result.shape or start.any()):
        raise VividMedError(
            f"{labels.source}: has the size {turned.shape[::-1]}, but its image {Path(image.source).name} has {image.size}; "
            "give labels of the whole image"
        )
    target, source = [], []
    for low, length, size in zip(start.astype(int), turned.shape, result.shape, strict=True):
        target.append(slice(max(low, 0), max(0, min(low + length, size))))
        source.append(slice(max(-low, 0), max(-low, 0) + max(0, min(low + length, size) - max(low, 0))))
    outside = int((turned != 0).sum()) - int((turned[tuple(source)] != 0).sum())
    if outside:
        raise VividMedError(
            f"{labels.source}: {outside} labelled voxels lie outside {Path(image.source).name}; give labels drawn on this "
            "image"
        )
    result[tuple(target)] = turned[tuple(source)]
    return np.ascontiguousarray(result.T)


def _error(mapping: np.ndarray, turn: np.ndarray, offset: np.ndarray, size: tuple[int, ...]) -> float:
    """Largest distance, in voxels, between where two index mappings put the corners of a (D, H, W) grid."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size[::-1]])).reshape(3, -1)
    moved = (mapping[:3, :3] - turn) @ corners + (mapping[:3, 3] - offset)[:, None]
    return float(np.abs(moved).max())
