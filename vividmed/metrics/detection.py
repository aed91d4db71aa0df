"""Boxes against boxes: average precision, mean best IoU, FROC; 2D images are volumes of one slice."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from monai.data.box_utils import box_iou

from vividmed.metrics.metric import ItemMetric, check_lengths, draw_weights

FALSE_POSITIVES_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where FROC reads the sensitivity (LUNA16)."""
NAMES = ("ap", "ap50", "ap40", "best_iou", "froc")
_RECALL_LEVELS = np.linspace(0, 1, 101)
_COCO_THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())

_BOXES = datasets.List(datasets.List(datasets.Value("float32"), length=6))


class Detection(ItemMetric):
    """Figures of boxes over images, computed for each target and averaged over targets.

    ``ap``: mean over IoU thresholds 0.50, 0.55, ... 0.95 of the average precision, precision read at 101 recalls (COCO).
    ``ap50``, ``ap40``: at one threshold (0.4 is that of the VinDr-CXR challenge).
    ``best_iou``: for each true box the largest IoU with any prediction, averaged over boxes.
    ``froc``: sensitivity at an IoU of 0.5, averaged over 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives per image (LUNA16).

    Each prediction is ``{"boxes": [...], "scores": [...]}``, each reference
    ``{"boxes": [...], "target": NAME}``, one pair per image and target; boxes are voxel corners
    (z0, y0, x0, z1, y1, x1), half-open. Targets without a true box do not count.
    """

    description = "average precision, best IoU and FROC of boxes"
    features = datasets.Features(
        {
            "predictions": {"boxes": _BOXES, "scores": datasets.List(datasets.Value("float32"))},
            "references": {"boxes": _BOXES, "target": datasets.Value("string")},
        }
    )

    def score_items(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        check_lengths(predictions, references)
        return [self._match(*pair) for pair in zip(predictions, references, strict=True)]

    def _match(self, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of an image's predictions, which of them are right at each threshold, and the best IoUs."""
        scores = np.asarray(prediction["scores"], dtype=float)
        order = np.argsort(-scores, kind="stable")
        found = _corners(prediction["boxes"])[order]
        truth = _corners(reference["boxes"])
        overlaps = np.zeros((len(found), len(truth)))
        if len(found) and len(truth):
            overlaps = np.asarray(box_iou(found, truth))
        thresholds = (0.4, *_COCO_THRESHOLDS)
        return {
            "target": reference["target"],
            "scores": scores[order],
            "right": {threshold: _greedy_matches(overlaps, threshold) for threshold in thresholds},
            "truths": len(truth),
            "best": overlaps.max(axis=0).tolist() if len(found) else [0.0] * len(truth),
        }

    def count(self, items: Sequence[Mapping[str, Any]], figure: str) -> int:
        """Number of items with a true box; the others only add false positives."""
        return sum(item["truths"] > 0 for item in items)

    def aggregate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        figures = self._of_draws(items, np.ones((1, len(items))))
        return {name: float(values[0]) for name, values in figures.items()}

    def aggregate_resamples(
        self, items: Sequence[Mapping[str, Any]], draws: Sequence[Sequence[int]]
    ) -> dict[str, list[float]]:
        if not draws:
            return {}
        figures = self._of_draws(items, draw_weights(draws, len(items)))
        return {name: values.tolist() for name, values in figures.items()}

    def _of_draws(self, items: Sequence[Mapping[str, Any]], weights: np.ndarray) -> dict[str, np.ndarray]:
        """Figures of draws, each averaged over the targets that have a box in the draw.

        Args:
            items: of :meth:`score_items`.
            weights: (draws, items), how often each draw has each item.
        """
        groups: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            groups.setdefault(item["target"], []).append(number)
        figures = [
            _figures_of_target([items[number] for number in numbers], weights[:, numbers])
            for numbers in groups.values()
            if any(items[number]["truths"] for number in numbers)
        ]
        if not figures:
            return {name: np.full(len(weights), np.nan) for name in NAMES}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw without any box
            return {name: np.nanmean([each[name] for each in figures], axis=0) for name in NAMES}


def _figures_of_target(items: Sequence[Mapping[str, Any]], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of one target for each draw of its items; NaN for draws without a true box."""
    scores = np.concatenate([item["scores"] for item in items])
    order = np.argsort(-scores, kind="stable")
    of_item = np.repeat(np.arange(len(items)), [len(item["scores"]) for item in items])[order]
    boxes = weights[:, of_item]
    truths = weights @ np.asarray([item["truths"] for item in items], dtype=float)
    truths[truths == 0] = np.nan
    right = {
        threshold: np.concatenate([item["right"][threshold] for item in items])[order]
        for threshold in (0.4, *_COCO_THRESHOLDS)
    }
    precisions = {
        threshold: _average_precision(boxes * each, boxes, truths) for threshold, each in right.items()
    }
    best = weights @ np.asarray([float(np.sum(item["best"])) for item in items])
    return {
        "ap": np.mean([precisions[threshold] for threshold in _COCO_THRESHOLDS], axis=0),
        "ap50": precisions[0.5],
        "ap40": precisions[0.4],
        "best_iou": best / truths,
        "froc": _froc(boxes * right[0.5], boxes, truths, weights.sum(axis=1)),
    }


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 6)


def _greedy_matches(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """(P,) bool: predictions, best score first, each take the free true box with the largest IoU."""
    free = np.ones(overlaps.shape[1], dtype=bool)
    right = np.zeros(len(overlaps), dtype=bool)
    for number, row in enumerate(overlaps):
        candidates = np.where(free, row, -1.0)
        if candidates.size and candidates.max() >= threshold:
            right[number] = True
            free[candidates.argmax()] = False
    return right


def _average_precision(right: np.ndarray, boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Mean of the interpolated precision at 101 recalls, per draw.

    Args:
        right: (draws, boxes), how often a draw has each box, the best score first, if it is right, else 0.
        boxes: (draws, boxes), how often a draw has each box.
        truths: (draws,) number of true boxes, NaN for none.
    """
    if not boxes.shape[1]:
        return np.where(np.isnan(truths), np.nan, 0.0)
    hits, counted = right.cumsum(axis=1), boxes.cumsum(axis=1)
    precision = hits / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    known = np.where(np.isnan(truths), 1.0, truths)[:, None]
    # The least number of hits whose recall reaches each level, as floating point compares them.
    needed = np.ceil(_RECALL_LEVELS * known - 1e-9)
    needed += needed / known < _RECALL_LEVELS
    places = _first_places(hits, needed)
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    return np.where(np.isnan(truths), np.nan, np.take_along_axis(padded, places, axis=1).mean(axis=1))


def _froc(right: np.ndarray, boxes: np.ndarray, truths: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean sensitivity at the false positives per image, per draw; arguments as for :func:`_average_precision`."""
    sensitivity = right.cumsum(axis=1) / truths[:, None]
    # The last box within each number of false positives is the one before the first beyond it.
    beyond = np.floor(np.multiply.outer(images, FALSE_POSITIVES_PER_IMAGE) + 1e-9) + 1
    places = _first_places((boxes - right).cumsum(axis=1), beyond)
    padded = np.concatenate([np.zeros((len(boxes), 1)), sensitivity], axis=1)
    found = np.take_along_axis(padded, places, axis=1).mean(axis=1)
    return np.where(np.isnan(truths), np.nan, found)


def _first_places(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """For each non-decreasing row of counts, the first place that reaches each number; its length if none does.

    Args:
        rows: (draws, boxes) whole numbers.
        numbers: (draws, levels) whole numbers.
    """
    if not rows.shape[1]:
        return np.zeros(numbers.shape, dtype=int)
    # One search over all rows, which an offset keeps apart.
    step = max(rows.max(), numbers.max()) + 1
    offsets = np.arange(len(rows))[:, None] * step
    flat = np.searchsorted((rows + offsets).ravel(), (numbers + offsets).ravel(), side="left")
    starts = np.arange(len(rows))[:, None] * rows.shape[1]
    return np.clip(flat.reshape(numbers.shape) - starts, 0, rows.shape[1])
