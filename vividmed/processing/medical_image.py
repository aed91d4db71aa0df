"""An image with its place in the patient."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vividmed.errors import VividMedError
from vividmed.triples import Triple

_LARGEST = 1e9
"""Millimetres, or voxels per millimetre."""
_FLAT = 1e-6
"""Volume of a voxel divided by that of a box of the same edge lengths, below which its axes lie in one plane."""


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """A 2D or 3D image as it was read, neither resampled nor reoriented.

    Attributes:
        array: (C, D, H, W), C = 1 (grey) or 3 (RGB); D = 1 in 2D. Integer or float, in the modality's own units (HU
            for CT); 8-bit integers are display values from 0 to 255.
        affine: 4 x 4 float64, voxel index (x, y, z) -> RAS+ mm of the voxel's centre. Array axes are (z, y, x), so
            index axis ``i`` is array axis ``2 - i`` of (D, H, W).
        modality: DICOM code such as ``"CT"``, ``"MR"``, ``"CR"``; None if unknown.
        source: file the image came from, or what it was given as; used in error messages.
        oriented: whether the affine places a volume in the patient, so that it may be turned to the canonical
            orientation. False for 2D images, which are used as displayed, and for arrays without geometry.
        files: DICOM files it was read from, in the order of the slices; empty for other sources.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    source: str = "array"
    oriented: bool = False
    files: tuple[Path, ...] = ()

    def __post_init__(self):
        shape = self.array.shape
        if self.array.ndim != 4 or shape[0] not in (1, 3):
            raise VividMedError(
                f"{self.source}: array of shape {shape} is not (C, D, H, W) with 1 or 3 channels; give one modality or "
                "an RGB image at a time"
            )
        if 0 in shape:
            raise VividMedError(f"{self.source}: array of shape {shape} is empty; give an image with voxels")
        if self.array.dtype.kind not in "uif":
            raise VividMedError(
                f"{self.source}: values of type {self.array.dtype} are not intensities; give integers or floats"
            )
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not _is_invertible(affine):
            raise VividMedError(
                f"{self.source}: the affine is not an invertible 4 x 4 matrix of sensible size; correct the image's header"
            )
        object.__setattr__(self, "affine", affine)

    @property
    def size(self) -> Triple:
        """(D, H, W)."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel along (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)


def _is_invertible(affine: np.ndarray) -> bool:
    return _spans_a_volume(np.ascontiguousarray(affine).tobytes())


@lru_cache(maxsize=256)  # 2D images all have the same affine
def _spans_a_volume(content: bytes) -> bool:
    affine = np.frombuffer(content).reshape(4, 4)
    if not np.isfinite(affine).all() or np.abs(affine).max() > _LARGEST:
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Relative to the spacing, since voxels of microscopes are small.
    return bool(spacing.min() > 1 / _LARGEST and abs(np.linalg.det(affine[:3, :3] / spacing)) > _FLAT)


def picture_affine(spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Affine of a 2D image of unknown position, taken as an upright frontal view: columns run left and rows down.

    Args:
        spacing: millimetres per pixel along (y, x).
    """
    y, x = spacing
    return np.diag([-x, -y, 1.0, 1.0])
