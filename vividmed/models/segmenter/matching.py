"""Assignment of predicted instances to labelled ones (DETR, section 3.1; VividMed, 3.3)."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment

NO_MATCH = -1


def hungarian_matching(
    positive_costs: Sequence[torch.Tensor], negative_costs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Match queries to instances at the least total cost, for several targets.

    A target with fewer instances than queries is padded with negatives, each of which costs a query the same
    wherever it stands. With more instances than queries every query gets one and the surplus is left out.

    Args:
        positive_costs: for each target (Q, M), the cost of query q taking instance m; M may be 0.
        negative_costs: for each target (Q,), the cost of query q taking none.

    Returns:
        For each target (Q,) int64 on the costs' device: the index of the instance, or ``NO_MATCH``.

    Raises:
        FloatingPointError: when a cost is not finite, which means that the predictions have diverged.
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
