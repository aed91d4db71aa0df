"""Losses of masks and instances, as named components with a table of weights.

Everything is computed in float32. What was not annotated is neither present nor absent: voxels to ignore, targets
whose presence nobody judged, and box lists that may be incomplete leave no trace in a loss or its gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from vividmed.models.segmenter.matching import NO_MATCH, hungarian_matching

_EPSILON = torch.finfo(torch.float32).eps


@dataclass
class LossOutput:
    """A weighted sum and what it is made of.

    Attributes:
        total: scalar, in the graph of the predictions also where nothing was labelled (then zero).
        components: unweighted scalars by name. Those that a batch has no data for are left out.
    """

    total: torch.Tensor
    components: dict[str, torch.Tensor] = field(default_factory=dict)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """One minus the soft Dice coefficient of each mask (Milletari et al., 2016, with a plain sum below).

    There is no smoothing term: an empty target gives exactly 1 and no gradient, and leaves the work to the focal
    loss.

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
    """Focal loss of each element (Lin et al., 2017): cross entropy that fades where the prediction is right.

    Args:
        logits: any shape.
        targets: the same shape, 0 or 1.
        gamma: how fast it fades; 0 is plain cross entropy.
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
            targets: as ``logits``, 0 or 1; ``None`` says that all are empty.
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
        return _weigh({name: value.mean() for name, value in per_mask.items()}, self.weights)

    def per_mask(
        self, logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The unweighted components of each mask, (..., D, H, W) to (...); ``valid`` keeps a voxel of each mask."""
        focal = sigmoid_focal_loss(logits, targets, gamma=self.focal_gamma, alpha=self.focal_alpha)
        space = (-3, -2, -1)
        focal = focal.mean(space) if valid is None else (focal * valid).sum(space) / valid.sum(space)
        return {"dice": dice_loss(logits, targets, valid), "focal": focal}


def _weigh(components: dict[str, torch.Tensor], weights: dict[str, float]) -> LossOutput:
    """Components without a weight are for the log alone."""
    total = torch.stack(
        [weights[name] * value for name, value in components.items() if name in weights]
    ).sum()
    return LossOutput(total, components)


@dataclass
class InstanceLossOutput(LossOutput):
    """As :class:`LossOutput`.

    Attributes:
        matches: for each target (Q,), the index of the labelled instance that each query was given, or
            :data:`~vividmed.models.segmenter.matching.NO_MATCH`.
    """

    matches: list[torch.Tensor] = field(default_factory=list)


class InstanceLoss(nn.Module):
    """Set prediction loss of instances: match queries to labels, then score, box and, if given, mask losses.

    The components ``score`` (focal), ``box_l1`` (mean over the six numbers), ``box_giou`` (1 - GIoU) are weighted as
    the arguments say; ``mask_dice`` and ``mask_focal`` as ``mask_loss`` does. ``score_positive`` and
    ``score_negative`` are the focal losses of matched and other queries without ``focal_alpha``, for the log.

    Args:
        score_weight: weight of the score in matching and loss.
        box_l1_weight: the same of the L1 distance of boxes.
        box_giou_weight: the same of 1 - GIoU.
        focal_gamma: see :func:`sigmoid_focal_loss`.
        focal_alpha: see :func:`sigmoid_focal_loss`.
        match_focal: let matching cost what the focal loss costs, instead of the probability of being wrong.
        mask_loss: how masks are compared, when given.
        negative_masks: teach queries without an instance to draw nothing (components ``negative_mask_*``).
    """

    def __init__(
        self,
        *,
        score_weight: float = 2.0,
        box_l1_weight: float = 5.0,
        box_giou_weight: float = 2.0,
        focal_gamma: float = 2.0,
        focal_alpha: float | None = 0.85,
        match_focal: bool = False,
        mask_loss: MaskLoss | None = None,
        negative_masks: bool = False,
    ):
        super().__init__()
        self.mask_loss = mask_loss or MaskLoss()
        self.weights = {"score": score_weight, "box_l1": box_l1_weight, "box_giou": box_giou_weight}
        for prefix in ("mask", "negative_mask"):
            self.weights |= {f"{prefix}_{name}": weight for name, weight in self.mask_loss.weights.items()}
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha
        self.match_focal = match_focal
        self.negative_masks = negative_masks

    def forward(
        self,
        boxes: torch.Tensor,
        logits: torch.Tensor,
        target_boxes: Sequence[torch.Tensor],
        *,
        exhaustive: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        low_res_masks: torch.Tensor | None = None,
        target_masks: Sequence[torch.Tensor] | None = None,
    ) -> InstanceLossOutput:
        """Loss of one image's prompts, each of which asks for one target.

        Args:
            boxes: (P, Q, 6), predicted; centre and size (z, y, x, d, h, w) as fractions of the image.
            logits: (P, Q), predicted scores.
            target_boxes: for each prompt (M, 6), in the same form; M may be 0.
            exhaustive: (P,), false where there may be more instances than those given (or where nobody looked): then
                queries without an instance are not counted as wrong. Default: all true.
            masks: (P, Q, D, H, W), predicted mask logits; given with the two below or not at all. Masks then take
                the place of boxes in matching.
            low_res_masks: (P, Q, d', h', w'), those that matching compares.
            target_masks: for each prompt (M, D, H, W), 0 or 1.

        Returns:
            MeanMeter over the queries (scores) and over the matched queries (boxes, masks) of all prompts.
        """
        given = torch.ones(len(logits), dtype=torch.bool) if exhaustive is None else exhaustive.bool()
        given = given.to(logits.device)[:, None]
        target_boxes = [target.to(boxes.device, torch.float32) for target in target_boxes]
        matches = self._match(boxes, logits, target_boxes, given, low_res_masks, target_masks)
        anchor = boxes.flatten()[:0].float().sum() + logits.flatten()[:0].float().sum()
        if masks is not None:
            anchor = anchor + masks.flatten()[:0].float().sum()
        if not matches:
            return InstanceLossOutput(anchor)
        chosen = torch.stack(matches)
        positive = chosen != NO_MATCH
        components = self._score_losses(logits, positive, given)
        if positive.any():
            pairs = boxes[positive], _pick(target_boxes, matches)
            components["box_l1"] = F.l1_loss(pairs[0].float(), pairs[1])
            components["box_giou"] = 1 - generalized_box_iou(*pairs).mean()
        if masks is not None and target_masks is not None:
            components |= self._mask_losses(masks, target_masks, matches, positive, given)
        if not components:
            return InstanceLossOutput(anchor, matches=matches)
        weighed = _weigh(components, self.weights)
        return InstanceLossOutput(weighed.total + anchor, weighed.components, matches)

    def _score_losses(
        self, logits: torch.Tensor, positive: torch.Tensor, exhaustive: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        negative = ~positive & exhaustive
        plain = sigmoid_focal_loss(logits, positive, gamma=self.focal_gamma)
        used = positive | negative
        components = {}
        if used.any():
            loss = sigmoid_focal_loss(logits, positive, gamma=self.focal_gamma, alpha=self.focal_alpha)
            components["score"] = loss[used].mean()
        if positive.any():
            components["score_positive"] = plain[positive].mean().detach()
        if negative.any():
            components["score_negative"] = plain[negative].mean().detach()
        return components

    def _mask_losses(
        self,
        masks: torch.Tensor,
        target_masks: Sequence[torch.Tensor],
        matches: Sequence[torch.Tensor],
        positive: torch.Tensor,
        exhaustive: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        components: dict[str, torch.Tensor] = {}
        if positive.any():
            drawn = self.mask_loss(masks[positive], _pick(target_masks, matches).to(masks.device)).components
            components |= {f"mask_{name}": value for name, value in drawn.items()}
        negative = ~positive & exhaustive
        if self.negative_masks and negative.any():
            drawn = self.mask_loss(masks[negative], None).components
            components |= {f"negative_mask_{name}": value for name, value in drawn.items()}
        return components

    @torch.no_grad()
    def _match(
        self,
        boxes: torch.Tensor,
        logits: torch.Tensor,
        target_boxes: Sequence[torch.Tensor],
        exhaustive: torch.Tensor,
        low_res_masks: torch.Tensor | None,
        target_masks: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        if self.match_focal:
            taken, left = (
                sigmoid_focal_loss(
                    logits, torch.full_like(logits, label), gamma=self.focal_gamma, alpha=self.focal_alpha
                )
                for label in (1, 0)
            )
        else:
            left = logits.float().sigmoid()
            taken = 1 - left
        taken, left = self.weights["score"] * taken, self.weights["score"] * left
        if low_res_masks is None or target_masks is None:
            costs = [self._box_cost(*pair) for pair in zip(boxes, target_boxes, strict=True)]
        else:
            costs = [self._mask_cost(*pair) for pair in zip(low_res_masks, target_masks, strict=True)]
            if self.negative_masks:
                left = left + self._weighted_mask_cost(low_res_masks, torch.zeros_like(low_res_masks))
        positive_costs = [score[:, None] + cost for score, cost in zip(taken, costs, strict=True)]
        return hungarian_matching(positive_costs, list(left.where(exhaustive, 0)))

    def _box_cost(self, boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(Q, 6) and (M, 6) to (Q, M)."""
        boxes, targets = boxes.float()[:, None], targets[None]
        distance = (boxes - targets).abs().mean(-1)
        return self.weights["box_l1"] * distance + self.weights["box_giou"] * (
            1 - generalized_box_iou(boxes, targets)
        )

    def _mask_cost(self, masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(Q, d, h, w) and (M, D, H, W) to (Q, M)."""
        count = len(targets)
        small = F.interpolate(targets.to(masks)[:, None], masks.shape[1:], mode="nearest-exact")[:, 0]
        return self._weighted_mask_cost(
            masks[:, None].expand(-1, count, -1, -1, -1), small.expand(len(masks), -1, -1, -1, -1)
        )

    def _weighted_mask_cost(self, masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        parts = self.mask_loss.per_mask(masks, targets)
        return torch.stack([self.mask_loss.weights[name] * value for name, value in parts.items()]).sum(0)


def _pick(labels: Sequence[torch.Tensor], matches: Sequence[torch.Tensor]) -> torch.Tensor:
    """The labels of all matched queries, in the order that boolean indexing lists the queries."""
    return torch.cat(
        [
            label[match[match != NO_MATCH].to(label.device)]
            for label, match in zip(labels, matches, strict=True)
        ]
    )
