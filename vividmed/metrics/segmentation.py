"""Overlap and surface distance of masks, by MONAI: Dice, 95th percentile Hausdorff distance, surface Dice."""

import warnings
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from vividmed.metrics.masks import MASK, check_grids, decode_mask
from vividmed.metrics.metric import MeanMetric, ratio


class Segmentation(MeanMetric):
    """Figures of one mask against another on the same grid, averaged over masks.

    ``dice``: 2 |A and B| / (|A| + |B|); NaN (not counted) where both are empty, 0 where one is.
    ``hd95``: 95th percentile of the distances between the surfaces in mm, both ways; NaN where one mask is empty.
    ``nsd``: share of both surfaces that lies within ``tolerance`` of the other; 0 where one mask is empty.

    Predictions and references are masks of :func:`vividmed.metrics.masks.encode_mask`.

    Args:
        tolerance: distance within which surfaces agree for ``nsd``, in mm.
        surfaces: compute ``hd95`` and ``nsd``; without them only ``dice`` is given.
    """

    description = "Dice, HD95 and surface Dice of masks"
    features = datasets.Features({"predictions": MASK, "references": MASK})

    def __init__(self, *, tolerance: float = 2.0, surfaces: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.tolerance = tolerance
        self.surfaces = surfaces

    def score_item(self, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        found, truth = decode_mask(prediction), decode_mask(reference)
        check_grids(found, truth)
        if not self.surfaces:
            return {"dice": dice(found, truth)}
        if not found.any() and not truth.any():
            return dict.fromkeys(("dice", "hd95", "nsd"), float("nan"))
        if not found.any() or not truth.any():
            return {"dice": 0.0, "hd95": float("nan"), "nsd": 0.0}
        return {"dice": dice(found, truth), **self._surfaces(found, truth, reference["spacing"])}

    def _surfaces(self, found: np.ndarray, truth: np.ndarray, spacing: list[float]) -> dict[str, float]:
        both = found | truth
        # The surfaces lie within the box around both masks; a margin keeps edges from being cut off.
        region = tuple(slice(max(0, int(axis.min()) - 1), int(axis.max()) + 2) for axis in np.nonzero(both))
        first, second = (
            torch.from_numpy(np.pad(mask[region], 1).astype(np.float32))[None, None]
            for mask in (found, truth)
        )
        if found.shape[0] == 1:  # of a 2D image
            first, second, spacing = first[:, :, 1], second[:, :, 1], spacing[1:]
        options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about a call within MONAI
            distance = compute_hausdorff_distance(first, second, percentile=95, **options)
            surface = compute_surface_dice(first, second, class_thresholds=[self.tolerance], **options)
        return {"hd95": float(distance), "nsd": float(surface)}


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two bool masks of one shape; NaN where both are empty."""
    return ratio(2 * float((found & truth).sum()), float(found.sum()) + float(truth.sum()))
