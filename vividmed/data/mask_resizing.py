"""Masks from the original grid to the model's grid, touching only the voxels of their boxes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vividmed.data.augmentation import Augmentation
from vividmed.data.masks import unpack_mask
from vividmed.processing.geometry import ResizePlan

Size = tuple[int, int, int]

_HALF = 0.5


def masks_to_model(
    entries: Sequence[Mapping[str, Any]],
    *,
    size: Size,
    plan: ResizePlan,
    augmentation: Augmentation | None = None,
) -> torch.Tensor:
    """Union of packed masks on the model's grid.

    The result is that of :meth:`ResizePlan.apply_mask` on the full grid, but for voxels that are half covered to
    within rounding. Resizing is linear and separable, so the block inside the box is multiplied with the columns of one
    matrix an axis that belong to it.

    Args:
        entries: of a row's ``masks`` column.
        size: (D, H, W) of the grid they lie on.
        plan: from there to the model's grid, after ``augmentation``.
        augmentation: moves the masks as it moved the image.

    Returns:
        (D, H, W) bool.

    Raises:
        VividMedError: A mask does not lie on the grid, or is damaged.
    """
    result = torch.zeros(plan.model_size, dtype=torch.bool)
    entries = [entry for entry in entries if any(entry["box"])]
    if not entries:
        return result
    block, box = _union(entries, size)
    if augmentation is not None:
        block = augmentation.array(block)
        box = augmentation.boxes(box[None].astype(float), size)[0].round().astype(int)
    values = torch.from_numpy(block).float()
    values = values.permute(*plan.axes)
    place = []
    for axis, (source, flip) in enumerate(zip(plan.axes, plan.flips, strict=True)):
        low, high = int(box[source]), int(box[source + 3])
        if flip:
            low, high = plan.oriented_size[axis] - high, plan.oriented_size[axis] - low
            values = values.flip(axis)
        weights = _weights(plan.oriented_size[axis], plan.resized_size[axis])[:, low:high]
        rows = weights.any(dim=1).nonzero()[:, 0]
        first, last = int(rows[0]), int(rows[-1]) + 1
        values = torch.tensordot(weights[first:last], values, dims=([1], [axis])).movedim(0, axis)
        before = plan.padding[axis][0]
        place.append(slice(before + first, before + last))
    result[tuple(place)] = values >= _HALF
    return result


def _union(entries: Sequence[Mapping[str, Any]], size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Bool block that holds all masks, and its box (z0, y0, x0, z1, y1, x1)."""
    boxes = np.array([entry["box"] for entry in entries])
    box = np.concatenate([boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)])
    shape = tuple(int(n) for n in np.minimum(box[3:], size) - box[:3])
    block = np.zeros(shape, dtype=bool)
    for entry in entries:
        shifted = {**entry, "box": [int(v) for v in entry["box"] - np.tile(box[:3], 2)]}
        block |= unpack_mask(shifted, shape)  # type: ignore[arg-type]
    return block, box


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> torch.Tensor:
    """(new, old) matrix of the model's linear resizing of an axis, anti-aliased where it shrinks."""
    identity = torch.eye(old)
    if old == new:
        return identity
    resized = F.interpolate(
        identity[None, None], (old, new), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0].T.contiguous()
