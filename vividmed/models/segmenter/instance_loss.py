"""Set prediction loss of instances.

The loss of a prompt is computed in two steps, as in DETR. First each query is matched: it is given one of the
labelled instances or none, so that the total cost of all queries is least. The cost of an instance is the weighted
sum of the query's lack of confidence and the distance of its box, or of its mask where masks are given. Then the
queries are compared with what they were given: the scores of all queries with whether they got an instance, and the
boxes and masks of those that did.

Labels may be incomplete. A prompt whose labels are not exhaustive says nothing about its other queries: taking no
instance then costs nothing, and the scores of queries without one are left out of the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from vividmed.models.segmenter.losses import (
    LossOutput,
    MaskLoss,
    generalized_box_iou,
    sigmoid_focal_loss,
    weigh,
)
from vividmed.models.segmenter.matching import (
    NO_MATCH,
    MatchingCosts,
    focal_cost,
    hungarian_matching,
    probability_of_error,
)


@dataclass
class InstanceLossOutput(LossOutput):
    """A weighted sum, its components, and the assignment that they rest on.

    Attributes:
        matches: for each prompt (Q,), the index of the labelled instance that each query was given, or
            :data:`~vividmed.models.segmenter.matching.NO_MATCH`.
    """

    matches: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class _Predictions:
    """Instances predicted for P prompts; the arguments of :meth:`InstanceLoss.forward`."""

    boxes: torch.Tensor
    logits: torch.Tensor
    masks: torch.Tensor | None
    low_res_masks: torch.Tensor | None

    def anchor(self) -> torch.Tensor:
        """Zero, in the graph of all predictions."""
        given = [tensor for tensor in (self.boxes, self.logits, self.masks) if tensor is not None]
        return torch.stack([tensor.flatten()[:0].float().sum() for tensor in given]).sum()


@dataclass(frozen=True)
class _Targets:
    """Labelled instances of P prompts; ``exhaustive`` (P, 1) is true where there are no others."""

    boxes: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor] | None
    exhaustive: torch.Tensor


class InstanceLoss(nn.Module):
    """Matches queries to labelled instances, then adds score, box and, if given, mask losses.

    The components ``score`` (focal), ``box_l1`` (mean over the six numbers) and ``box_giou`` (1 - GIoU) are weighted
    as the arguments say; ``mask_dice`` and ``mask_focal`` as ``mask_loss`` does. ``score_positive`` and
    ``score_negative`` are the focal losses of matched and other queries without ``focal_alpha``, for the log only.

    Args:
        score_weight: weight of the score in matching and loss.
        box_l1_weight: weight of the L1 distance of boxes in matching and loss.
        box_giou_weight: weight of 1 - GIoU in matching and loss.
        focal_gamma: see :func:`~vividmed.models.segmenter.losses.sigmoid_focal_loss`.
        focal_alpha: see :func:`~vividmed.models.segmenter.losses.sigmoid_focal_loss`.
        match_focal: use the focal loss as matching cost, instead of the probability of being wrong.
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
        self.negative_masks = negative_masks
        self.costs = MatchingCosts(
            score=score_weight,
            box_l1=box_l1_weight,
            box_giou=box_giou_weight,
            masks=self.mask_loss,
            score_cost=focal_cost(focal_gamma, focal_alpha) if match_focal else probability_of_error,
            negative_masks=negative_masks,
        )

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
        """Loss of the prompts of one image, each of which asks for one target.

        Args:
            boxes: (P, Q, 6), predicted; centre and size (z, y, x, d, h, w) as fractions of the image.
            logits: (P, Q), predicted scores.
            target_boxes: for each prompt (M, 6), in the same form; M may be 0.
            exhaustive: (P,), false where there may be more instances than those given, or where nobody looked:
                queries without an instance are then not counted as wrong. All true by default.
            masks: (P, Q, D, H, W), predicted mask logits; given with the two below or not at all. Masks then take
                the place of boxes in matching.
            low_res_masks: (P, Q, d', h', w'), the masks that matching compares.
            target_masks: for each prompt (M, D, H, W), 0 or 1.

        Returns:
            Means over the queries (scores) and over the matched queries (boxes, masks) of all prompts.
        """
        predicted = _Predictions(boxes, logits, masks, low_res_masks)
        given = torch.ones(len(logits), dtype=torch.bool) if exhaustive is None else exhaustive.bool()
        targets = _Targets(
            boxes=[target.to(boxes.device, torch.float32) for target in target_boxes],
            masks=target_masks,
            exhaustive=given.to(logits.device)[:, None],
        )
        matches = self._match(predicted, targets)
        if not matches:
            return InstanceLossOutput(predicted.anchor())
        positive = torch.stack(matches) != NO_MATCH
        negative = ~positive & targets.exhaustive
        components = self._score_losses(logits, positive, negative)
        components |= self._box_losses(boxes, targets.boxes, matches, positive)
        if masks is not None and target_masks is not None:
            components |= self._mask_losses(masks, target_masks, matches, positive, negative)
        if not components:
            return InstanceLossOutput(predicted.anchor(), matches=matches)
        weighed = weigh(components, self.weights)
        return InstanceLossOutput(weighed.total + predicted.anchor(), weighed.components, matches)

    @torch.no_grad()
    def _match(self, predicted: _Predictions, targets: _Targets) -> list[torch.Tensor]:
        """For each prompt (Q,), the index of each query's instance, or ``NO_MATCH``."""
        if predicted.low_res_masks is None or targets.masks is None:
            pairs = zip(predicted.boxes, targets.boxes, strict=True)
            distances = [self.costs.of_boxes(*pair) for pair in pairs]
        else:
            pairs = zip(predicted.low_res_masks, targets.masks, strict=True)
            distances = [self.costs.of_masks(*pair) for pair in pairs]
        taken = self.costs.of_something(predicted.logits)
        left = self.costs.of_nothing(
            predicted.logits, None if targets.masks is None else predicted.low_res_masks
        )
        return hungarian_matching(
            [score[:, None] + distance for score, distance in zip(taken, distances, strict=True)],
            list(left.where(targets.exhaustive, 0)),
        )

    def _score_losses(
        self, logits: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Components of the scores (P, Q) of queries with an instance and of those known to have none."""
        used = positive | negative
        components = {}
        if used.any():
            loss = sigmoid_focal_loss(logits, positive, gamma=self.focal_gamma, alpha=self.focal_alpha)
            components["score"] = loss[used].mean()
        plain = sigmoid_focal_loss(logits, positive, gamma=self.focal_gamma).detach()
        for name, chosen in (("score_positive", positive), ("score_negative", negative)):
            if chosen.any():
                components[name] = plain[chosen].mean()
        return components

    @staticmethod
    def _box_losses(
        boxes: torch.Tensor,
        targets: Sequence[torch.Tensor],
        matches: Sequence[torch.Tensor],
        positive: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Components of the boxes of queries with an instance."""
        if not positive.any():
            return {}
        found, labelled = boxes[positive].float(), _pick(targets, matches)
        return {
            "box_l1": F.l1_loss(found, labelled),
            "box_giou": 1 - generalized_box_iou(found, labelled).mean(),
        }

    def _mask_losses(
        self,
        masks: torch.Tensor,
        targets: Sequence[torch.Tensor],
        matches: Sequence[torch.Tensor],
        positive: torch.Tensor,
        negative: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Components of the masks of queries with an instance and, if asked for, of those known to have none."""
        components: dict[str, torch.Tensor] = {}
        if positive.any():
            drawn = self.mask_loss(masks[positive], _pick(targets, matches).to(masks.device)).components
            components |= {f"mask_{name}": value for name, value in drawn.items()}
        if self.negative_masks and negative.any():
            drawn = self.mask_loss(masks[negative], None).components
            components |= {f"negative_mask_{name}": value for name, value in drawn.items()}
        return components


def _pick(labels: Sequence[torch.Tensor], matches: Sequence[torch.Tensor]) -> torch.Tensor:
    """The labels of all matched queries, in the order in which boolean indexing lists the queries."""
    return torch.cat(
        [
            label[match[match != NO_MATCH].to(label.device)]
            for label, match in zip(labels, matches, strict=True)
        ]
    )
