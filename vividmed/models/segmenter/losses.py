"""Losses of masks, boxes and scores, as named components with a table of weights.

Everything is computed in float32. Unannotated is neither present nor absent: voxels to ignore and targets whose
presence nobody judged have no effect on a loss or its gradient.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

_EPSILON = torch.finfo(torch.float32).eps


@dataclass
class LossOutput:
    """A weighted sum and its components.

    Attributes:
        total: scalar, in the graph of the predictions also where nothing was labelled (then zero).
        components: unweighted scalars by name, without those that the batch has no data for.
    """

    total: torch.Tensor
    components: dict[str, torch.Tensor] = field(default_factory=dict)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """One minus the soft Dice coefficient of each mask (Milletari et al., 2016, with a plain sum below).

    There is no smoothing term: an empty target gives exactly 1 and no gradient, which leaves it to the focal loss.

    Args:
        logits: (..., D, H, W).
        targets: as ``logits``, 0 or 1.
        valid: as ``logits``, false where a voxel is to be ignored.

    Returns:
        (...).
    """
    probabilities, targets = logits.float().sigmoid(), targets.float()
    if valid is not None:
        probabilities, targets = probabilities * valid, targets * valid
    space = (-3, -2, -1)
    volume = (probabilities.sum(space) + targets.sum(space)).clamp(min=1e-8)
    return 1 - 2 * (probabilities * targets).sum(space) / volume


def sigmoid_focal_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, gamma: float = 2.0, alpha: float | None = None
) -> torch.Tensor:
    """Focal loss of each element (Lin et al., 2017): cross-entropy that fades where the prediction is right.

    Args:
        logits: any shape.
        targets: the same shape, 0 or 1.
        gamma: how fast it fades; 0 is plain cross-entropy.
        alpha: weight of positives, negatives get ``1 - alpha``; ``None`` weighs both 1.

    Returns:
        The same shape, float32.
    """
    logits, targets = logits.float(), targets.float()
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if gamma > 0:
        # The probability of being wrong, from logits, so that it keeps its precision near 0.
        loss = loss * (logits * (1 - 2 * targets)).sigmoid() ** gamma
    if alpha is not None:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss


def generalized_box_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """GIoU of 3D boxes, pair by pair (Rezatofighi et al., 2019).

    Args:
        boxes: (..., 6), centre and size (z, y, x, d, h, w); negative sizes count as 0.
        others: the same, or a shape that broadcasts.

    Returns:
        (...) float32 between -1 and 1.
    """
    lower, upper, volume = _corners(boxes)
    other_lower, other_upper, other_volume = _corners(others)
    overlap = (torch.minimum(upper, other_upper) - torch.maximum(lower, other_lower)).clamp(min=0).prod(-1)
    union = volume + other_volume - overlap
    hull = (torch.maximum(upper, other_upper) - torch.minimum(lower, other_lower)).prod(-1)
    return overlap / (union + _EPSILON) - (hull - union) / (hull + _EPSILON)


def _corners(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    centre, size = boxes.float().split(3, dim=-1)
    half = size.clamp(min=0) / 2
    return centre - half, centre + half, (2 * half).prod(-1)


class MaskLoss(nn.Module):
    """Dice and focal loss of masks.

    Args:
        dice_weight: weight of Dice.
        focal_weight: weight of the focal loss.
        focal_gamma: see :func:`sigmoid_focal_loss`.
        focal_alpha: see :func:`sigmoid_focal_loss`.
    """

    def __init__(
        self,
        *,
        dice_weight: float = 2.0,
        focal_weight: float = 2.0,
        focal_gamma: float = 2.0,
        focal_alpha: float | None = None,
    ):
        super().__init__()
        self.weights = {"dice": dice_weight, "focal": focal_weight}
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha

    def forward(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor | None,
        *,
        ignore: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
    ) -> LossOutput:
        """Mean over masks.

        Args:
            logits: (..., D, H, W).
            targets: as ``logits``, 0 or 1; ``None`` if all are empty.
            ignore: as ``logits`` or broadcasting to it, true where a voxel was not annotated.
            known: (...), false for masks of targets that nobody looked for.

        Returns:
            Components ``dice`` and ``focal``; none where no mask has a voxel to learn from.
        """
        if targets is None:
            targets = torch.zeros_like(logits, dtype=torch.bool)
        valid = None if ignore is None else ~ignore.bool().expand_as(logits)
        if valid is not None or known is not None:
            use = torch.ones_like(logits[..., 0, 0, 0], dtype=torch.bool)
            if known is not None:
                use &= known.to(use)
            if valid is not None:
                use &= valid.flatten(-3).any(-1)
                valid = valid[use]
            logits, targets = logits[use], targets[use]
        if not logits.numel():
            return LossOutput(logits.float().sum())
        per_mask = self.per_mask(logits, targets, valid)
        return weigh({name: value.mean() for name, value in per_mask.items()}, self.weights)

    def per_mask(
        self, logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The unweighted components of each mask, (..., D, H, W) to (...); ``valid`` keeps a voxel of each mask."""
        focal = sigmoid_focal_loss(logits, targets, gamma=self.focal_gamma, alpha=self.focal_alpha)
        space = (-3, -2, -1)
        focal = focal.mean(space) if valid is None else (focal * valid).sum(space) / valid.sum(space)
        return {"dice": dice_loss(logits, targets, valid), "focal": focal}


def weigh(components: dict[str, torch.Tensor], weights: dict[str, float]) -> LossOutput:
    """The weighted sum of components; those without a weight are for the log only."""
    total = torch.stack(
        [weights[name] * value for name, value in components.items() if name in weights]
    ).sum()
    return LossOutput(total, components)
