"""Measurements of a mask: volume, diameters, mean attenuation. They are not written by the model."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from vividmed.export.findings import Finding
from vividmed.processing.medical_image import MedicalImage

MEASURED_BY = "vividmed mask measurement"
"""Algorithm of the measured values, which the model did not write."""


@dataclass(frozen=True)
class Measurements:
    """Figures of one mask.

    Attributes:
        volume_ml: of the voxels.
        longest_diameter_mm: largest distance of two voxels' centres within one slice, plus one pixel, in the slice
            where it is largest (as RECIST measures).
        short_diameter_mm: largest extent perpendicular to it in the same slice.
        mean_hu: mean of the voxels' values; None where they are not Hounsfield units.
    """

    volume_ml: float
    longest_diameter_mm: float
    short_diameter_mm: float
    mean_hu: float | None


def measure(image: MedicalImage, mask: np.ndarray) -> Measurements | None:
    """Measure a mask.

    Args:
        image: as read.
        mask: (D, H, W) bool on its grid.

    Returns:
        None for an empty mask, and for 2D images, whose spacing is not known.
    """
    if not image.oriented or image.size[0] == 1 or not mask.any():
        return None
    voxel = abs(float(np.linalg.det(image.affine[:3, :3])))
    _, y, x = image.spacing
    longest, short = max(_diameters(plane, (y, x)) for plane in mask if plane.any())
    mean = float(image.array[0][mask].mean()) if image.modality == "CT" else None
    return Measurements(float(mask.sum()) * voxel / 1000, longest, short, mean)


def tabulate(image: MedicalImage, findings: Sequence[Finding]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of columns, and a row of texts for each finding that can be measured: its number, its phrase, its figures.

    The mean has a column where at least one finding has it.
    """
    names = ("", "phrase", "volume, mL", "longest, mm", "across, mm", "mean, HU")
    rows, means = [], []
    for finding in findings:
        measured = None if finding.mask is None else measure(image, finding.mask)
        if measured is not None:
            figures = (measured.volume_ml, measured.longest_diameter_mm, measured.short_diameter_mm)
            rows.append([str(finding.number), finding.text, *(f"{figure:.1f}" for figure in figures)])
            means.append("" if measured.mean_hu is None else f"{measured.mean_hu:.0f}")
    if not any(means):
        return names[:-1], rows
    return names, [[*row, mean] for row, mean in zip(rows, means, strict=True)]


def _diameters(plane: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    """Longest diameter of a slice (H, W), and the largest extent perpendicular to it, in mm."""
    # The ends of each row have the hull of all pixels.
    rows = np.flatnonzero(plane.any(axis=1))
    ends = plane[rows].argmax(axis=1), plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    points = np.unique(np.concatenate([np.stack([rows, end], axis=1) for end in ends]), axis=0) * spacing
    pixel = float(np.mean(spacing))
    with contextlib.suppress(QhullError, ValueError):  # too few points, or all in one line
        points = points[ConvexHull(points).vertices]
    if len(points) == 1:
        return pixel, pixel
    distances = squareform(pdist(points))
    one, other = np.unravel_index(distances.argmax(), distances.shape)
    axis = (points[other] - points[one]) / distances[one, other]
    across = points @ np.array([-axis[1], axis[0]])
    return float(distances[one, other]) + pixel, float(np.ptp(across)) + pixel
