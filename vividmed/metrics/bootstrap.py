"""Confidence intervals by resampling patients, not items: images of a patient are not independent."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
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
        samples: number of resamples; 0 gives intervals of no width. A figure that only the items of a single patient
            count for has no interval: what would differ between patients cannot be known.
        confidence: share of resamples inside the interval.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        VividMedError: items and patients differ in number, or there is none.
    """
    draws = _draw(patients, len(items), samples, seed)
    resampled = metric.aggregate_resamples(items, draws)
    return {
        name: _interval(value, resampled.get(name, ()), confidence)
        if _has_several_patients(metric, items, patients, name)
        else Interval(value, math.nan, math.nan)
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
    differences: dict[str, Interval] = {}
    for name in (name for name in values[0] if name in values[1]):
        value = values[1][name] - values[0][name]
        if not all(_has_several_patients(metric, items, patients, name) for items in (first, second)):
            differences[name] = Interval(value, math.nan, math.nan)
            continue
        pairs = zip(resampled[0][name], resampled[1][name], strict=True) if samples else ()
        differences[name] = _interval(value, [after - before for before, after in pairs], confidence)
    return differences


def _has_several_patients(
    metric: ItemMetric, items: Sequence[Any], patients: Sequence[Hashable], figure: str
) -> bool:
    """Whether a figure counts items of at least two patients."""
    members: dict[Hashable, list[Any]] = {}
    for item, patient in zip(items, patients, strict=True):
        members.setdefault(patient, []).append(item)
    counted = (1 for own in members.values() if metric.count(own, figure))
    return len(list(islice(counted, 2))) == 2


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
