"""Choose which intensities are shown black and which white."""

from collections.abc import Sequence

import numpy as np

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_SAMPLE = 1 << 20
"""Voxels that percentiles are taken from, evenly spaced."""
_PERCENTILES = (0.5, 99.5)
_HOUNSFIELD_WINDOWS = {"soft tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800), "brain": (40, 80)}
"""The usual display windows of CT, (level, width) in HU."""
_HOUNSFIELD_AIR = -500
"""Only CT has values below this."""


def display_range(image: MedicalImage, window: Sequence[float] | None = None) -> tuple[float, float]:
    """Choose the intensities shown black and white.

    Args:
        image: 8-bit images are shown as they are; others between two percentiles of the voxels above the minimum,
            as the model sees them by default.
        window: (level, width) in the image's own units instead.

    Raises:
        VividMedError: the window is not two finite numbers with a width above 0.
    """
    if window is not None:
        if len(window) != 2 or not np.isfinite(window).all() or window[1] <= 0:
            raise VividMedError(
                f"window {tuple(window)} is not (level, width) with a width above 0, such as (40, 400)"
            )
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    if image.array.dtype == np.uint8:
        return 0.0, 255.0
    values = sample_intensities(image)
    above = values[values > values.min()]
    low, high = np.percentile(above, _PERCENTILES) if above.size else (values.min(), values.min() + 1)
    return (float(low), float(high)) if low < high else (float(low) - 1, float(high))


def window_presets(image: MedicalImage, *, lowest: float) -> dict[str, tuple[int, int]]:
    """The usual display windows of an image, (level, width) by name; none if its values are not Hounsfield units.

    Args:
        image: of any modality.
        lowest: of its intensities, without outliers.
    """
    is_ct = image.modality == "CT" or (image.modality is None and lowest < _HOUNSFIELD_AIR)
    return _HOUNSFIELD_WINDOWS if is_ct else {}


def sample_intensities(image: MedicalImage) -> np.ndarray:
    """Sample finite intensities of about a million evenly spaced voxels, float64 (n,); one zero if none is finite."""
    flat = image.array.reshape(-1)
    values = flat[:: -(-flat.size // _SAMPLE)].astype(np.float64)
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1)


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale intensities between ``low`` and ``high`` to uint8; NaN is black."""
    scaled = (np.nan_to_num(values.astype(np.float32), nan=low) - low) / (high - low)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)
