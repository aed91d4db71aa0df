"""Boxes against boxes: average precision, mean best IoU, FROC; 2D images are volumes of one slice."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from monai.data.box_utils import box_iou

from vividmed.metrics.metric import ItemMetric, check_lengths, nan_mean

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

    def aggregate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for item in items:
            groups.setdefault(item["target"], []).append(item)
        figures = [
            _figures_of_target(group) for group in groups.values() if any(item["truths"] for item in group)
        ]
        return {name: nan_mean([each[name] for each in figures]) for name in NAMES}


def _figures_of_target(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    truths = sum(item["truths"] for item in items)
    scores = np.concatenate([item["scores"] for item in items])
    order = np.argsort(-scores, kind="stable")
    right = {
        threshold: np.concatenate([item["right"][threshold] for item in items])[order]
        for threshold in (0.4, *_COCO_THRESHOLDS)
    }
    precisions = {threshold: _average_precision(each, truths) for threshold, each in right.items()}
    return {
        "ap": nan_mean([precisions[threshold] for threshold in _COCO_THRESHOLDS]),
        "ap50": precisions[0.5],
        "ap40": precisions[0.4],
        "best_iou": nan_mean([iou for item in items for iou in item["best"]]),
        "froc": _froc(right[0.5], truths, len(items)),
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


def _average_precision(right: np.ndarray, truths: int) -> float:
    """Mean of the interpolated precision at 101 recalls."""
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1] if len(right) else precision
    places = np.searchsorted(hits / truths, _RECALL_LEVELS, side="left")
    return float(np.mean([envelope[place] if place < len(envelope) else 0.0 for place in places]))


def _froc(right: np.ndarray, truths: int, images: int) -> float:
    sensitivity = right.cumsum() / truths
    false_positives = (~right).cumsum() / images
    read = []
    for allowed in FALSE_POSITIVES_PER_IMAGE:
        within = int(np.searchsorted(false_positives, allowed, side="right"))
        read.append(float(sensitivity[within - 1]) if within else 0.0)
    return float(np.mean(read))
