"""Merges several readers' boxes into one box per object."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Rectangle = tuple[float, float, float, float]

_FIRST_THRESHOLD = 0.25
_STEP = 0.05


def consensus_boxes(by_reader: Mapping[str, Sequence[Rectangle]]) -> list[Rectangle]:
    """Merge the boxes that several readers drew around one kind of finding.

    Boxes of different readers that overlap enough are taken for one object, whose box is their mean. The overlap
    required starts at an IoU of 0.25 and rises by 0.05 until no group has more boxes than there are readers.

    Args:
        by_reader: reader to boxes (x0, y0, x1, y1), all of them finite.

    Returns:
        Mean boxes, sorted.
    """
    drawn = sorted((reader, box) for reader, boxes in by_reader.items() for box in set(boxes))
    if not drawn:
        return []
    readers = np.array([reader for reader, _ in drawn])
    boxes = np.array([box for _, box in drawn], dtype=float)
    overlap = _iou(boxes) * (readers[:, None] != readers[None, :])
    count = len(set(readers))
    threshold = _FIRST_THRESHOLD
    while True:
        _, groups = connected_components(csr_array(overlap >= threshold), directed=False)
        if threshold >= 1 or np.bincount(groups).max() <= count:
            break
        threshold = min(1.0, threshold + _STEP)
    means = [boxes[groups == group].mean(axis=0) for group in range(groups.max() + 1)]
    return sorted((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in means)


def _iou(boxes: np.ndarray) -> np.ndarray:
    """IoU of every pair of boxes: (n, 4) -> (n, n)."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    return common / np.maximum(area[:, None] + area[None, :] - common, 1e-9)
