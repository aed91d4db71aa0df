"""Hungarian matching of queries and instances."""

from itertools import permutations

import pytest
import torch

from vividmed.models.segmenter.matching import NO_MATCH, hungarian_matching


def cheapest(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The least total cost, by trying every assignment."""
    queries, instances = positive.shape
    columns = torch.cat([positive, negative[:, None].expand(-1, max(queries - instances, 0))], dim=1)
    rows = torch.arange(queries)
    return min(
        columns[rows, list(chosen)].sum().item() for chosen in permutations(range(columns.shape[1]), queries)
    )


def total(match: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> float:
    return sum(
        (negative[query] if instance == NO_MATCH else positive[query, instance]).item()
        for query, instance in enumerate(match.tolist())
    )


@pytest.mark.parametrize("instances", [0, 1, 3, 4, 6])
def test_matching_is_the_cheapest_of_all(instances):
    generator = torch.Generator().manual_seed(instances)
    for _ in range(20):
        positive = torch.randn(4, instances, generator=generator)
        negative = torch.randn(4, generator=generator)
        (match,) = hungarian_matching([positive], [negative])
        assert total(match, positive, negative) == pytest.approx(cheapest(positive, negative), abs=1e-5)


@pytest.mark.parametrize("instances", [0, 1, 4, 7])
def test_every_instance_is_taken_once_until_queries_run_out(instances):
    (match,) = hungarian_matching([torch.rand(4, instances)], [torch.rand(4)])
    taken = match[match != NO_MATCH].tolist()
    assert len(taken) == len(set(taken)) == min(4, instances)


def test_targets_are_matched_apart():
    first, second = torch.rand(3, 2), torch.rand(3, 5)
    negatives = [torch.rand(3), torch.rand(3)]
    together = hungarian_matching([first, second], negatives)
    apart = hungarian_matching([first], negatives[:1]) + hungarian_matching([second], negatives[1:])
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_no_targets_give_no_matches():
    assert hungarian_matching([], []) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_predictions_are_named(value):
    with pytest.raises(FloatingPointError, match="diverged"):
        hungarian_matching([torch.full((2, 1), value)], [torch.zeros(2)])
