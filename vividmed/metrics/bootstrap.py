"""Confidence intervals by resampling patients, not items: images of a patient are not independent."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vividmed.errors import VividMedError
from vividmed.metrics.metric import ItemMetric


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its percentile interval; NaN where it cannot be computed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    metric: ItemMetric,
    items: Sequence[Any],
    patients: Sequence[Hashable],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Figures of a metric with intervals.

    Args:
        metric: aggregates items.
        items: of ``metric.score_items``.
        patients: the patient of each item; the items of a drawn patient are drawn together.
        samples: number of resamples; 0 gives intervals of no width. A single patient gives none: what would differ
            between patients cannot be known.
        confidence: share of resamples inside the interval.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        VividMedError: items and patients differ in number, or there is none.
    """
    draws = _draw(patients, len(items), samples, seed)
    resampled = metric.aggregate_resamples(items, draws)
    is_one = len(set(patients)) == 1
    return {
        name: Interval(value, math.nan, math.nan)
        if is_one
        else _interval(value, resampled.get(name, ()), confidence)
        for name, value in metric.aggregate(items).items()
    }


def compare(
    metric: ItemMetric,
    first: Sequence[Any],
    second: Sequence[Any],
    patients: Sequence[Hashable],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Differences ``second - first`` of two systems on the same items, each resample drawn once for both.

    Args:
        metric: aggregates items.
        first: items of one system.
        second: items of the other, in the same order.
        patients: the patient of each item.
        samples: number of resamples.
        confidence: share of resamples inside the interval.
        seed: of the draws.

    Raises:
        VividMedError: the systems differ in number of items.
    """
    if len(first) != len(second):
        raise VividMedError(
            f"one system has {len(first)} items and the other {len(second)}; compare them on the same items"
        )
    draws = _draw(patients, len(first), samples, seed)
    values = [metric.aggregate(items) for items in (first, second)]
    resampled = [metric.aggregate_resamples(items, draws) for items in (first, second)]
    return {
        name: _interval(
            values[1][name] - value,
            [after - before for before, after in zip(resampled[0][name], resampled[1][name], strict=True)]
            if samples
            else (),
            confidence,
        )
        for name, value in values[0].items()
        if name in values[1]
    }


def _draw(patients: Sequence[Hashable], count: int, samples: int, seed: int) -> list[list[int]]:
    """Indices of the items of each resample."""
    if len(patients) != count or count == 0:
        raise VividMedError(f"{count} items with {len(patients)} patients: give the patient of each item")
    groups: dict[Hashable, list[int]] = {}
    for index, patient in enumerate(patients):
        groups.setdefault(patient, []).append(index)
    members = list(groups.values())
    generator = np.random.default_rng(seed)
    return [
        [index for group in generator.integers(len(members), size=len(members)) for index in members[group]]
        for _ in range(samples)
    ]


def _interval(value: float, resampled: Sequence[float], confidence: float) -> Interval:
    counted = np.asarray([other for other in resampled if not np.isnan(other)])
    if not counted.size:
        return Interval(value, value, value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(counted, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
