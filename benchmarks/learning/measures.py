"""Figures of the learning benchmarks: overlap of masks, average precision of boxes, statements of reports."""

import re
from collections.abc import Sequence

import numpy as np
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou

from benchmarks.learning.phantom_studies import COUNTS, Phantom

_FINDING = re.compile(r"(one|two) (small|large) nodules? in the (left|right) lung")
_NOTHING = re.compile(r"no nodule", re.IGNORECASE)


def dice(mask: np.ndarray | None, truth: np.ndarray) -> float:
    """Dice coefficient of two masks (D, H, W); 0 if nothing was drawn."""
    if mask is None:
        return 0.0
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def best_ious(boxes: np.ndarray, truth: np.ndarray) -> list[float]:
    """Largest IoU of each true box (m, 6) with any found box (n, 6); corners are (z0, y0, x0, z1, y1, x1)."""
    if not len(boxes):
        return [0.0] * len(truth)
    return box_iou(truth.astype(np.float32), boxes.astype(np.float32)).max(axis=1).tolist()


def average_precision(
    boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> float:
    """Average precision at a 3D IoU of 0.5 over all images, as COCO defines it and MONAI computes it.

    Args:
        boxes: (n, 6) corners per image.
        scores: (n,) per image.
        truths: (m, 6) corners per image.
    """
    metric = COCOMetric(classes=["nodule"], iou_list=[0.5], iou_range=(0.5, 0.5, 0.05), max_detection=[100])
    matches = matching_batch(
        iou_fn=box_iou,
        iou_thresholds=metric.iou_thresholds,
        pred_boxes=[np.asarray(each, dtype=np.float32).reshape(-1, 6) for each in boxes],
        pred_classes=[np.zeros(len(each), dtype=int) for each in boxes],
        pred_scores=list(scores),
        gt_boxes=[np.asarray(each, dtype=np.float32).reshape(-1, 6) for each in truths],
        gt_classes=[np.zeros(len(each), dtype=int) for each in truths],
    )
    return float(metric(matches)[0]["AP_IoU_0.50_MaxDet_100"])


def statements(report: str) -> dict[str, str]:
    """Read what a report says about the nodules: ``count`` and, if there are any, ``size`` and ``side``."""
    if match := _FINDING.search(report):
        return dict(zip(("count", "size", "side"), match.groups(), strict=True))
    return {"count": COUNTS[0]} if _NOTHING.search(report) else {}


def true_statements(phantom: Phantom) -> dict[str, str]:
    """Statements that a correct report makes about the nodules."""
    said = {"count": COUNTS[len(phantom.nodules)]}
    if phantom.side and phantom.size:
        said |= {"size": phantom.size, "side": phantom.side}
    return said
