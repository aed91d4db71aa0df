"""Assignment of predicted instances to labelled ones (DETR, section 3.1; VividMed, 3.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from vividmed.models.segmenter.losses import MaskLoss, generalized_box_iou, sigmoid_focal_loss

NO_MATCH = -1


def hungarian_matching(
    positive_costs: Sequence[torch.Tensor], negative_costs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Match queries to instances at the least total cost, for several targets.

    A target with fewer instances than queries is padded with negatives, each of which costs a query the same
    wherever it stands. With more instances than queries, every query gets one and the surplus is left out.

    Args:
        positive_costs: for each target (Q, M), the cost of query q taking instance m; M may be 0.
        negative_costs: for each target (Q,), the cost of query q taking none.

    Returns:
        For each target (Q,) int64 on the costs' device: the index of the instance, or ``NO_MATCH``.

    Raises:
        FloatingPointError: a cost is not finite, which means that the predictions have diverged.
    """
    if not positive_costs:
        return []
    device = positive_costs[0].device
    counts = [cost.shape[1] for cost in positive_costs]
    # One transfer for all targets.
    columns = [
        torch.cat([positive, negative[:, None]], dim=1)
        for positive, negative in zip(positive_costs, negative_costs, strict=True)
    ]
    table = torch.cat(columns, dim=1).detach().float().cpu()
    if not table.isfinite().all():
        raise FloatingPointError(
            "a matching cost is not finite: the predicted boxes, scores or masks have diverged"
        )
    matches = torch.full((len(counts), len(table)), NO_MATCH)
    for row, costs in zip(matches, table.split([count + 1 for count in counts], dim=1), strict=True):
        count = costs.shape[1] - 1
        padding = max(len(costs) - count, 0)
        padded = torch.cat([costs[:, :count], costs[:, count:].expand(-1, padding)], dim=1)
        queries, chosen = linear_sum_assignment(padded.numpy())
        assigned = torch.from_numpy(chosen)
        row[torch.from_numpy(queries)] = assigned.where(assigned < count, NO_MATCH)
    return list(matches.to(device))


@dataclass(frozen=True)
class MatchingCosts:
    """Costs of giving a labelled instance to a query, or none.

    Taking an instance costs a query its lack of confidence and the distance of its box, or of its mask where masks
    are given. Taking none costs its confidence.

    Attributes:
        score: weight of confidence.
        box_l1: weight of the L1 distance of boxes.
        box_giou: weight of 1 - GIoU.
        masks: how masks are compared.
        score_cost: turns logits (P, Q) and the label 0 or 1 into a cost (P, Q).
        negative_masks: let a query without an instance also pay for what it draws.
    """

    score: float
    box_l1: float
    box_giou: float
    masks: MaskLoss
    score_cost: Callable[[torch.Tensor, int], torch.Tensor]
    negative_masks: bool = False

    def of_boxes(self, boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(Q, 6) and (M, 6) to (Q, M)."""
        boxes, targets = boxes.float()[:, None], targets[None]
        distance = (boxes - targets).abs().mean(-1)
        return self.box_l1 * distance + self.box_giou * (1 - generalized_box_iou(boxes, targets))

    def of_masks(self, masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(Q, d, h, w) and (M, D, H, W) to (Q, M)."""
        count = len(targets)
        small = F.interpolate(targets.to(masks)[:, None], masks.shape[1:], mode="nearest-exact")[:, 0]
        return self._compare_masks(
            masks[:, None].expand(-1, count, -1, -1, -1), small.expand(len(masks), -1, -1, -1, -1)
        )

    def of_nothing(self, logits: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (P, Q) and, if they are compared, masks (P, Q, d, h, w) to (P, Q)."""
        cost = self.score * self.score_cost(logits, 0)
        if masks is not None and self.negative_masks:
            cost = cost + self._compare_masks(masks, torch.zeros_like(masks))
        return cost

    def of_something(self, logits: torch.Tensor) -> torch.Tensor:
        """(P, Q) to (P, Q): the part of an instance's cost that is the same for all instances."""
        return self.score * self.score_cost(logits, 1)

    def _compare_masks(self, masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        parts = self.masks.per_mask(masks, targets)
        return torch.stack([self.masks.weights[name] * value for name, value in parts.items()]).sum(0)


def probability_of_error(logits: torch.Tensor, label: int) -> torch.Tensor:
    """The published matching cost: the probability that the score gives to the wrong answer."""
    probability = logits.float().sigmoid()
    return 1 - probability if label else probability


def focal_cost(gamma: float, alpha: float | None) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """The focal loss as a matching cost."""

    def cost(logits: torch.Tensor, label: int) -> torch.Tensor:
        return sigmoid_focal_loss(logits, torch.full_like(logits, label), gamma=gamma, alpha=alpha)

    return cost
