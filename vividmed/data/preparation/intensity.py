"""Scales intensities of any modality to eight bits: between the published quantiles, or by a window in Hounsfield units."""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

Limits = tuple[float, float]

WINDOWS: Mapping[str, Limits] = {
    "abdomen": (-160.0, 240.0),
    "bone": (-450.0, 1050.0),
    "brain": (0.0, 80.0),
    "lung": (-1150.0, 350.0),
    "mediastinum": (-160.0, 240.0),
    "wide": (-1000.0, 1000.0),
}
"""Lower and upper limit in HU of common windows."""

_QUANTILES = (float(ndtr(-3.0)), float(ndtr(3.0)))
"""Shares of a normal distribution below minus and plus three standard deviations."""


def intensity_limits(
    image: MedicalImage, *, window: str | None = None, exclude_minimum: bool = False
) -> Limits:
    """Find the values that become 0 and 255.

    Args:
        image: image as read; eight-bit images keep their values.
        window: name of a window, for images in HU.
        exclude_minimum: take quantiles only over voxels above the smallest value.

    Returns:
        Lower and upper limit: of the window, or the quantiles 0.00135 and 0.99865.

    Raises:
        VividMedError: the image contains NaN or infinite values, or a single value.
    """
    array = image.array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise VividMedError(f"{image.source}: contains NaN or infinite values; repair or leave out the image")
    low, high = array.min(), array.max()
    if low == high:
        raise VividMedError(
            f"{image.source}: every voxel is {low:g}, so there is nothing to see; leave out the image"
        )
    if array.dtype == np.uint8:
        return 0.0, 255.0
    if window is not None:
        return WINDOWS[window]
    values = array[array > low] if exclude_minimum else array.ravel()
    ranks = [min(values.size - 1, max(0, round(q * values.size) - 1)) for q in _QUANTILES]
    ordered = np.partition(values, ranks)
    lower, upper = float(ordered[ranks[0]]), float(ordered[ranks[1]])
    return (lower, upper) if lower < upper else (float(low), float(high))


def to_uint8(array: np.ndarray, limits: Limits) -> np.ndarray:
    """Scale values linearly so that the limits become 0 and 255, clipped and rounded."""
    if array.dtype == np.uint8:
        return array
    low, high = limits
    scaled = (array.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
