"""An opened scan as the viewer needs it: a NIfTI file of its intensities, an empty overlay, and how to show them."""

from typing import Any

import numpy as np

from vividmed.export.intensity import display_range, sample_intensities, window_presets
from vividmed.export.nifti import encode_nifti
from vividmed.processing.medical_image import MedicalImage

_COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
_LOWEST = 0.05
"""Percentile that stands for the lowest intensity."""


def describe_image(image: MedicalImage) -> dict[str, Any]:
    """Size, kind and window of an image, for the page."""
    low, high = display_range(image)
    lowest = float(np.percentile(sample_intensities(image), _LOWEST))
    return {
        "size": list(image.size),
        "spacing_mm": list(image.spacing),
        "modality": image.modality,
        "is_volume": image.size[0] > 1,
        "is_colour": len(image.array) == 3,
        "is_placed": image.oriented,
        "has_dicom_files": bool(image.files),
        "window": [(low + high) / 2, high - low],
        "presets": window_presets(image, lowest=lowest),
    }


def encode_image(image: MedicalImage) -> bytes:
    """Intensities as a compressed NIfTI file; colour as bytes."""
    array = image.array
    if len(array) == 3:
        low, high = display_range(image)
        if array.dtype != np.uint8:
            array = (np.clip((array - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        pixels = np.ascontiguousarray(np.moveaxis(array, 0, -1)).view(_COLOUR)[..., 0]
        return encode_nifti(pixels, image)
    plane = array[0]
    if plane.dtype.kind in "ui" and plane.dtype.itemsize <= 2:
        fitting = plane if plane.dtype in (np.uint8, np.int16, np.uint16) else plane.astype(np.int16)
    else:
        fitting = np.nan_to_num(plane.astype(np.float32), posinf=0, neginf=0)
    return encode_nifti(fitting, image)


def empty_overlay(image: MedicalImage) -> bytes:
    """Zeros on the grid of an image, into which the page draws numbers of phrases."""
    return encode_nifti(np.zeros(image.size, dtype=np.uint8), image)
