"""Draw masks on the voxels of the image itself, for volumes larger than the model's budget.

The model sees a volume as a few tokens per side. Once it has found a phrase there, the segmenter looks again at the
region around it, at full resolution and window by window, with the same prompts (SegVol's zoom-out-zoom-in).
"""

from collections.abc import Callable

import torch
from monai.inferers import SlidingWindowInferer

from vividmed.models.segmenter.modeling_segmenter import Segmenter
from vividmed.processing.geometry import ResizePlan

OVERLAP = 0.5
MARGIN = 0.1
"""Part of the found region's extent that is added on each side."""
NOWHERE = -20.0
"""Logit outside the region that is segmented."""


def segment_at_full_resolution(
    segmenter: Segmenter,
    values: torch.Tensor,
    prompts: torch.Tensor,
    masks: torch.Tensor,
    *,
    plan: ResizePlan,
    mask_threshold: float,
) -> tuple[torch.Tensor, ResizePlan]:
    """Draw the masks of one image again at full resolution.

    Args:
        segmenter: the segmenter that drew them.
        values: (1 or 3, D, H, W) in [0, 1], the image as it was read.
        prompts: (P, E).
        masks: (P, d, h, w) logits on the grid that the model saw.
        plan: plan by which the model saw the image.
        mask_threshold: a phrase whose mask reaches this probability nowhere counts as not found.

    Returns:
        (P, D', H', W') logits, and the plan that their grid belongs to.
    """
    fine = plan.at_full_resolution()
    image = fine.apply(values).clamp(0, 1).expand(3, -1, -1, -1)
    found = torch.stack([fine.apply(plan.restore(logits.float().sigmoid().cpu())) for logits in masks])
    redrawn = torch.full(found.shape, NOWHERE)
    region = _region(found.amax(0) >= mask_threshold)
    if region is not None:
        inferer = SlidingWindowInferer(
            plan.model_size, overlap=OVERLAP, mode="gaussian", padding_mode="constant"
        )
        windows = inferer(image[None, :, *region], _drawer(segmenter, prompts, plan))
        redrawn[:, *region] = windows[0].float().cpu()
        redrawn[found.flatten(1).amax(1) < mask_threshold] = NOWHERE
    return redrawn, fine


def _drawer(
    segmenter: Segmenter, prompts: torch.Tensor, plan: ResizePlan
) -> Callable[[torch.Tensor], torch.Tensor]:
    """(B, 3, d, h, w) windows to (B, P, d, h, w) logits."""

    def draw(windows: torch.Tensor) -> torch.Tensor:
        count = len(windows)
        return torch.stack(segmenter(list(windows), [prompts] * count, [plan.patch_size] * count).masks)

    return draw


def _region(found: torch.Tensor) -> tuple[slice, slice, slice] | None:
    """The box around the true voxels of (D, H, W), with a margin; None without any."""
    voxels = found.nonzero()
    if not len(voxels):
        return None
    low, high = voxels.amin(0), voxels.amax(0) + 1
    margin = ((high - low) * MARGIN).ceil().long() + 1
    low = (low - margin).clamp(min=0)
    high = torch.minimum(high + margin, torch.tensor(found.shape))
    z, y, x = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return z, y, x
