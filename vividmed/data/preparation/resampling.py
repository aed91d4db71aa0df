"""Shrinks images and masks by averaging over the volume of the new voxels."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.triples import Triple

_INSIDE = 0.5


def limited_size(
    size: Triple, spacing: tuple[float, float, float], *, max_in_plane: int, max_depth: int | None
) -> Triple:
    """Size after the limits on resolution; no axis becomes finer.

    The shorter in-plane edge becomes at most ``max_in_plane``, with the aspect ratio kept. Slices closer than half the
    in-plane spacing are merged until they are that far apart, and to at most ``max_depth``.

    Args:
        size: (D, H, W), slices first.
        spacing: mm per voxel along (z, y, x).
        max_in_plane: largest length of the shorter in-plane edge.
        max_depth: largest number of slices; None for no limit.
    """
    depth, height, width = size
    factor = max(1.0, min(height, width) / max_in_plane)
    in_plane = min(spacing[1:]) * factor
    merge = max(1.0, 0.5 * in_plane / spacing[0])
    depth = max(1, round(depth / merge))
    return min(depth, max_depth or depth), max(1, round(height / factor)), max(1, round(width / factor))


def shrink(array: np.ndarray, size: Triple) -> np.ndarray:
    """Average (C, D, H, W) to (C, *size); voxels are weighted by the volume they share.

    Returns:
        float32, or the array itself if the size stays.
    """
    if array.shape[1:] == size:
        return array
    result = array.astype(np.float32)
    for axis, length in enumerate(size, start=1):
        if result.shape[axis] != length:
            result = _apply(_overlaps(result.shape[axis], length), result, axis)
    return result


def shrink_mask(patch: MaskPatch, size: Triple, new: Triple) -> MaskPatch:
    """Average a mask from a grid of ``size`` to one of ``new`` voxels and keep voxels that are at least half inside.

    A mask too thin for that keeps the voxels that it covers most, so that no target is lost.
    """
    corner, share = [], patch.inside.astype(np.float32)
    for axis, (start, length, old_size, new_size) in enumerate(
        zip(patch.corner, patch.inside.shape, size, new, strict=True)
    ):
        first = start * new_size // old_size
        last = -(-(start + length) * new_size // old_size)
        weights = _overlaps(old_size, new_size)[first:last, start : start + length]
        share = _apply(weights, share, axis)
        corner.append(first)
    inside = share >= min(_INSIDE, float(share.max()))
    return MaskPatch(patch.target, (corner[0], corner[1], corner[2]), inside)


def _overlaps(old: int, new: int) -> csr_array:
    """(new, old) weights: the share of each old voxel in each new one; rows sum to 1."""
    edges = np.linspace(0, old, new + 1)
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for row, (low, high) in enumerate(pairwise(edges)):
        for column in range(int(low), min(old, int(np.ceil(high)))):
            share = min(high, column + 1) - max(low, column)
            if share > 1e-9:
                rows.append(row)
                columns.append(column)
                weights.append(share / (high - low))
    return csr_array((np.array(weights, np.float32), (rows, columns)), shape=(new, old))


def _apply(weights: csr_array, array: np.ndarray, axis: int) -> np.ndarray:
    moved = np.moveaxis(array, axis, 0)
    flat = weights @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(flat.reshape(weights.shape[0], *moved.shape[1:]), 0, axis)


def scaled_box(box: Sequence[int], size: Triple, new: Triple) -> tuple[int, ...]:
    """A voxel box on a smaller grid, rounded outwards.

    Args:
        box: (z0, y0, x0, z1, y1, x1), half-open.
        size: (D, H, W) of its grid.
        new: (D, H, W) of the smaller one.
    """
    low = [edge * m // n for edge, n, m in zip(box[:3], size, new, strict=True)]
    high = [-(-edge * m // n) for edge, n, m in zip(box[3:], size, new, strict=True)]
    return (*low, *high)
