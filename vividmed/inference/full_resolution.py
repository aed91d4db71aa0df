"""Draw masks on the voxels of the image itself, for volumes larger than the model's budget.

The model sees a volume as a few tokens per side. Once it has found a phrase there, the segmenter looks again at the
region around it, at full resolution and window by window, with the same prompts (SegVol's zoom-out-zoom-in). Large
regions are drawn slab by slab, so that the memory beyond the image and its masks is bounded.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

from vividmed.models.phrases.forms import presence_of_masks
from vividmed.models.segmenter.modeling_segmenter import Segmenter
from vividmed.processing.geometry import ResizePlan

OVERLAP = 0.5
MARGIN = 0.1
"""Part of the found region's extent that is added on each side."""
SLAB_VOXELS = 1 << 26
"""Voxels of all masks together that are drawn at a time, at least two windows deep."""
Region = tuple[slice, slice, slice]


def segment_at_full_resolution(
    segmenter: Segmenter,
    array: np.ndarray,
    scale: Callable[[np.ndarray], torch.Tensor],
    prompts: torch.Tensor,
    logits: torch.Tensor,
    *,
    plan: ResizePlan,
    mask_threshold: float,
) -> list[np.ndarray | None]:
    """Draw the masks of one image again at full resolution.

    Args:
        segmenter: the segmenter that drew them.
        array: (1 or 3, D, H, W), the image as it was read.
        scale: turns a part of the array into values in [0, 1].
        prompts: (P, E).
        logits: (P, d, h, w), the masks on the grid that the model saw.
        plan: plan by which the model saw the image.
        mask_threshold: a phrase whose mask reaches this probability nowhere counts as not found.

    Returns:
        For each prompt its mask (D, H, W), bool on the grid of the array; None if it was not found.
    """
    probabilities = logits.float().sigmoid().cpu()
    found = presence_of_masks(logits).cpu() >= mask_threshold
    masks = [np.zeros(plan.original_size, dtype=bool) if each else None for each in found]
    if not found.any():
        return masks
    depth, rows, columns = region_around(probabilities.amax(0) >= mask_threshold, plan)
    views = [plan.oriented_view(mask) for mask in masks if mask is not None]
    voxels = plan.oriented_view(array)
    inferer = SlidingWindowInferer(plan.model_size, overlap=OVERLAP, mode="gaussian", padding_mode="constant")
    draw = _drawer(segmenter, prompts[found.to(prompts.device)], plan)
    area = len(views) * (rows.stop - rows.start) * (columns.stop - columns.start)
    for kept, seen in slabs(depth, max(SLAB_VOXELS // area, 2 * plan.model_size[0]), plan.model_size[0] // 2):
        values = scale(np.ascontiguousarray(voxels[:, seen, rows, columns]))
        drawn = inferer(values[None], draw)[0].float().cpu()
        drawn = drawn[:, kept.start - seen.start : kept.stop - seen.start].sigmoid_()
        for view, probability in zip(views, drawn.numpy(), strict=True):
            np.greater_equal(probability, mask_threshold, out=view[kept, rows, columns])
    return masks


def _drawer(
    segmenter: Segmenter, prompts: torch.Tensor, plan: ResizePlan
) -> Callable[[torch.Tensor], torch.Tensor]:
    """(B, 1 or 3, d, h, w) windows to (B, P, d, h, w) logits."""

    def draw(windows: torch.Tensor) -> torch.Tensor:
        count = len(windows)
        images = list(windows.expand(-1, 3, -1, -1, -1))
        return torch.stack(segmenter(images, [prompts] * count, [plan.patch_size] * count).masks)

    return draw


def region_around(found: torch.Tensor, plan: ResizePlan) -> Region:
    """The box, in voxels of the re-oriented image, around the true voxels (d, h, w) of the model's grid, with a margin."""
    voxels = found.nonzero().numpy()
    before = np.array([amount for amount, _ in plan.padding])
    size = np.array(plan.oriented_size)
    enlargement = size / np.array(plan.resized_size)
    # Interpolation reaches up to the centres of the next voxels.
    low = np.floor((voxels.min(0) - 0.5 - before) * enlargement)
    high = np.ceil((voxels.max(0) + 1.5 - before) * enlargement)
    margin = np.ceil((high - low) * MARGIN) + 1
    low = np.clip(low - margin, 0, size - 1).astype(int)
    high = np.clip(high + margin, low + 1, size).astype(int)
    z, y, x = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return z, y, x


def slabs(depth: slice, length: int, context: int) -> Iterator[tuple[slice, slice]]:
    """Divide slices into slabs; yields the slices of each slab, and these with as much context as there is."""
    count = max(1, round((depth.stop - depth.start) / length))
    bounds = np.linspace(depth.start, depth.stop, count + 1).round().astype(int).tolist()
    for start, stop in pairwise(bounds):
        yield slice(start, stop), slice(max(depth.start, start - context), min(depth.stop, stop + context))
