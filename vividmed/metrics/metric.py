"""The base of all metrics: figures of single items, and how they are brought to one figure."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from vividmed.errors import VividMedError

TEXT = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})


class ItemMetric(evaluate.Metric):
    """A metric in two steps, so that bootstrap intervals need not score an item twice.

    Subclasses give :meth:`score_items` and :meth:`aggregate`; ``compute``, ``add_batch`` and ``evaluate.combine`` work
    as for every ``evaluate.Metric``.
    """

    features: ClassVar[datasets.Features] = TEXT
    description: ClassVar[str] = ""
    citation_text: ClassVar[str] = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation_text,
            inputs_description="predictions and references, one of each per item",
            features=self.features,
        )

    @abstractmethod
    def score_items(self, predictions: Sequence[Any], references: Sequence[Any]) -> list[Any]:
        """Score each item, in a form that :meth:`aggregate` understands.

        Raises:
            VividMedError: predictions and references differ in number.
        """

    @abstractmethod
    def aggregate(self, items: Sequence[Any]) -> dict[str, float]:
        """Figures over items; NaN where no item counts."""

    def count(self, items: Sequence[Any], figure: str) -> int:
        """Number of items that a figure counts."""
        return len(items)

    def scorer(self) -> Mapping[str, Any]:
        """What the metric computes with besides code: places and hashes of weights, names of models."""
        return {}

    def aggregate_resamples(
        self, items: Sequence[Any], draws: Sequence[Sequence[int]]
    ) -> dict[str, list[float]]:
        """Figures of resamples of the items, given by the indices of each draw."""
        figures = [self.aggregate([items[i] for i in draw]) for draw in draws]
        names = dict.fromkeys(name for each in figures for name in each)
        return {name: [each.get(name, float("nan")) for each in figures] for name in names}

    def _enforce_nested_string_type(self, schema: Any, obj: Any) -> Any:
        # The library's check of strings takes every structure as given; a phrase without a mask has none.
        return (
            None
            if obj is None and isinstance(schema, dict)
            else super()._enforce_nested_string_type(schema, obj)
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        return self.aggregate(self.score_items(predictions, references))


class MeanMetric(ItemMetric):
    """A metric whose figures are means over items; an item's NaN does not count."""

    @abstractmethod
    def score_item(self, prediction: Any, reference: Any) -> Mapping[str, float]:
        """Figures of one item, the same names for every item."""

    def score_items(self, predictions: Sequence[Any], references: Sequence[Any]) -> list[Mapping[str, float]]:
        check_lengths(predictions, references)
        return [self.score_item(*pair) for pair in zip(predictions, references, strict=True)]

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return mean_of(items)

    def count(self, items: Sequence[Mapping[str, float]], figure: str) -> int:
        return sum(not np.isnan(item.get(figure, float("nan"))) for item in items)

    def aggregate_resamples(
        self, items: Sequence[Mapping[str, float]], draws: Sequence[Sequence[int]]
    ) -> dict[str, list[float]]:
        return resampled_means(items, draws)


def draw_weights(draws: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """How often each draw has each of ``count`` items: (draws, count) float."""
    return np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(float)


def resampled_means(
    items: Sequence[Mapping[str, float]], draws: Sequence[Sequence[int]]
) -> dict[str, list[float]]:
    """:func:`mean_of` of each draw of the items."""
    if not draws:
        return {}
    weights = draw_weights(draws, len(items))
    means = {}
    for name in dict.fromkeys(name for item in items for name in item):
        values = np.asarray([item.get(name, float("nan")) for item in items], dtype=float)
        counted = ~np.isnan(values)
        numbers = weights @ counted
        with np.errstate(invalid="ignore"):
            means[name] = (weights @ np.where(counted, values, 0.0) / numbers).tolist()
    return means


def mean_of(items: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each name over the items that have it; NaN does not count."""
    names = dict.fromkeys(name for item in items for name in item)
    return {name: nan_mean([item[name] for item in items if name in item]) for name in names}


def nan_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    array = np.asarray(values, dtype=float)
    counted = array[~np.isnan(array)]
    return float(counted.mean()) if counted.size else float("nan")


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN where the whole is 0."""
    return part / whole if whole else float("nan")


def f1(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 where both are 0, NaN where one is NaN."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def check_lengths(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Check that each item has a prediction and a reference.

    Raises:
        VividMedError: their numbers differ.
    """
    if len(predictions) != len(references):
        raise VividMedError(
            f"{len(predictions)} predictions for {len(references)} references; give one of each per item"
        )
