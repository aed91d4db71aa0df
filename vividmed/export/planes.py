"""Cut slices of an image for the screen: in radiological convention and in their true proportions."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple

_LETTERS = ("RL", "AP", "SI")
"""Positive and negative end of the three RAS+ axes."""
_RIGHT, _ANTERIOR, _SUPERIOR = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A stack of parallel slices, as displayed.

    Attributes:
        name: ``"axial"``, ``"coronal"``, ``"sagittal"``; for images of unknown position, the array axis that is cut.
        axis: array axis (0 = z, 1 = y, 2 = x) that counts the slices.
        rows: array axis that runs down the screen.
        columns: array axis that runs across the screen.
        flip_rows: whether ``rows`` is shown reversed.
        flip_columns: whether ``columns`` is shown reversed.
        size: (slices, rows, columns) in voxels.
        spacing: millimetres per voxel along (slices, rows, columns).
        letters: directions at the left, right, top and bottom edge, such as ``"RLAP"``; None if unknown.
    """

    name: str
    axis: int
    rows: int
    columns: int
    flip_rows: bool
    flip_columns: bool
    size: Triple
    spacing: tuple[float, float, float]
    letters: str | None

    @property
    def extent(self) -> tuple[float, float]:
        """(height, width) of a slice in mm."""
        return self.size[1] * self.spacing[1], self.size[2] * self.spacing[2]

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Cut one slice as displayed: (..., D, H, W) -> (..., rows, columns)."""
        offset = volume.ndim - 3
        piece = volume.take(index, axis=self.axis + offset)
        if self.rows > self.columns:
            piece = piece.swapaxes(-1, -2)
        if self.flip_rows:
            piece = piece[..., ::-1, :]
        return piece[..., ::-1] if self.flip_columns else piece

    def rectangle(self, box: np.ndarray) -> tuple[float, float, float, float]:
        """Edges (top, left, bottom, right) of a box (z0, y0, x0, z1, y1, x1) on a displayed slice, in voxels."""
        top, bottom = _interval(box, self.rows, self.size[1], reverse=self.flip_rows)
        left, right = _interval(box, self.columns, self.size[2], reverse=self.flip_columns)
        return top, left, bottom, right

    def meets(self, box: np.ndarray, index: int) -> bool:
        """Whether a box reaches into a slice."""
        return bool(box[self.axis] < index + 1 and box[self.axis + 3] > index)


def display_planes(image: MedicalImage) -> tuple[Plane, ...]:
    """List the planes in which an image is shown.

    A volume of known position gives an axial, a coronal and a sagittal plane in radiological convention: the patient's
    right on the left of the screen, anterior (in sagittal slices, on the left) and superior on top. Oblique volumes are
    not resampled; their axes are named by the nearest direction. Arrays without geometry and 2D images are shown
    as stored. An image of one slice gives the plane of that slice only.
    """
    planes = _anatomical_planes(image) if image.oriented else _array_planes(image)
    return tuple(plane for plane in planes if min(plane.size[1:]) > 1) or planes[:1]


def _anatomical_planes(image: MedicalImage) -> tuple[Plane, ...]:
    # Index axis i of the affine is array axis 2 - i.
    orientation = nib.orientations.io_orientation(image.affine)
    array_axis = {int(world): 2 - index for index, (world, _) in enumerate(orientation)}
    ascending = {int(world): bool(direction > 0) for world, direction in orientation}

    def plane(name: str, through: int, down: int, across: int) -> Plane:
        # Down and to the right, every world axis runs from its positive to its negative end.
        return _plane(
            image,
            name,
            (array_axis[through], array_axis[down], array_axis[across]),
            flips=(ascending[down], ascending[across]),
            letters=_LETTERS[across] + _LETTERS[down],
        )

    return (
        plane("axial", _SUPERIOR, _ANTERIOR, _RIGHT),
        plane("coronal", _ANTERIOR, _SUPERIOR, _RIGHT),
        plane("sagittal", _RIGHT, _SUPERIOR, _ANTERIOR),
    )


def _array_planes(image: MedicalImage) -> tuple[Plane, ...]:
    axes = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}
    return tuple(
        _plane(image, name, order, flips=(False, False), letters=None) for name, order in axes.items()
    )


def _plane(
    image: MedicalImage,
    name: str,
    axes: Triple,
    *,
    flips: tuple[bool, bool],
    letters: str | None,
) -> Plane:
    through, down, across = axes
    return Plane(
        name=name,
        axis=through,
        rows=down,
        columns=across,
        flip_rows=flips[0],
        flip_columns=flips[1],
        size=(image.size[through], image.size[down], image.size[across]),
        spacing=(image.spacing[through], image.spacing[down], image.spacing[across]),
        letters=letters,
    )


def _interval(box: np.ndarray, axis: int, size: int, *, reverse: bool) -> tuple[float, float]:
    low, high = float(box[axis]), float(box[axis + 3])
    return (size - high, size - low) if reverse else (low, high)
