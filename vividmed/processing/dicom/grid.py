"""Where DICOM slices lie, and whether they form one regular grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vividmed.errors import VividMedError
from vividmed.processing.dicom.attributes import FrameAttributes

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTION_TOLERANCE = 1e-3
"""Largest difference of direction cosines between slices, and of pixel spacings as a fraction."""
_UNIT_TOLERANCE = 1e-2
"""Largest deviation of the two directions of one slice from perpendicular unit vectors."""
_SAME_POSITION = 1e-3
"""Millimetres along the normal within which two slices lie at one position."""
_OFF_GRID = 0.1
"""Largest distance of a slice from its place in the grid, as a fraction of the spacing along the same direction."""
_ROUNDING = 0.02
"""Millimetres of distance from the grid that are always accepted, since headers round positions."""
_LARGEST_SHEAR = 1.0
"""Largest shift within the plane per slice, as a fraction of the slice distance; 45 degrees of gantry tilt."""


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """Where one slice lies, in DICOM's LPS+ mm.

    Attributes:
        position: centre of the first pixel.
        row: unit vector in which the column index grows.
        column: unit vector in which the row index grows.
        spacing: millimetres per pixel along (y, x).
    """

    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector perpendicular to the slice."""
        return np.cross(self.row, self.column)

    @property
    def distance(self) -> float:
        """Signed distance of the slice from the origin along its normal."""
        return float(self.position @ self.normal)

    def is_parallel_to(self, other: "SlicePlane") -> bool:
        """Whether directions and pixel spacing are the same."""
        directions = np.abs(np.r_[self.row, self.column] - np.r_[other.row, other.column])
        spacings = np.abs(np.divide(self.spacing, other.spacing) - 1)
        return bool(max(directions.max(), spacings.max()) <= _DIRECTION_TOLERANCE)


def slice_plane(attributes: FrameAttributes) -> SlicePlane | None:
    """Where a frame lies; None if the file does not say.

    Raises:
        VividMedError: a field is malformed, or the directions are not perpendicular unit vectors.
    """
    position = attributes.numbers("ImagePositionPatient", 3)
    orientation = attributes.numbers("ImageOrientationPatient", 6)
    spacing = pixel_spacing(attributes)
    if position is None or orientation is None or spacing is None or not any(orientation):
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > _UNIT_TOLERANCE:
        raise VividMedError(
            f"{attributes.source}: ImageOrientationPatient {list(orientation)} is not two perpendicular unit vectors; "
            "correct the header or export the file again"
        )
    return SlicePlane(np.array(position), row / lengths[0], column / lengths[1], spacing)


def pixel_spacing(attributes: FrameAttributes) -> tuple[float, float] | None:
    """Millimetres per pixel along (y, x); None if unknown."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = attributes.numbers(keyword, 2)
        if spacing is not None and min(spacing) > 0:
            return spacing[0], spacing[1]
    return None


def sort_slices(planes: Sequence[SlicePlane], source: str) -> list[int]:
    """Order slices along their normal and check that they form one regular grid.

    Args:
        planes: where each slice lies, in any order.
        source: the series or file, for errors.

    Returns:
        Indices of the slices, sorted by position.

    Raises:
        VividMedError: slices differ in direction or pixel spacing, share a position, or one is missing or out of place.
    """
    if not all(plane.is_parallel_to(planes[0]) for plane in planes):
        raise VividMedError(
            f"{source}: slices differ in direction or pixel spacing; split them into one series each"
        )
    order = sorted(range(len(planes)), key=lambda index: planes[index].distance)
    planes = [planes[index] for index in order]
    gaps = np.diff([plane.distance for plane in planes])
    usual = float(np.median(gaps))
    if gaps.min() < _SAME_POSITION:
        raise VividMedError(
            f"{source}: several slices lie at one position; keep one time point or echo in a folder"
        )
    if gaps.max() > 1.5 * usual:
        index = int(gaps.argmax())
        raise VividMedError(
            f"{source}: a slice is missing between slices {index + 1} and {index + 2} of {len(planes)} "
            f"({gaps[index]:.2f} mm apart instead of {usual:.2f} mm); add the file or export the series again"
        )
    _check_positions(planes, source)
    return order


def grid_affine(planes: Sequence[SlicePlane], thickness: float = 1.0) -> np.ndarray:
    """Affine from voxel index (x, y, z) to RAS+ mm.

    Args:
        planes: sorted along their normal.
        thickness: millimetres per voxel along z for a single slice.
    """
    first, y_spacing, x_spacing = planes[0], *planes[0].spacing
    step = _step(planes) if len(planes) > 1 else first.normal * thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = first.row * x_spacing, first.column * y_spacing, step
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def _step(planes: Sequence[SlicePlane]) -> np.ndarray:
    return (planes[-1].position - planes[0].position) / (len(planes) - 1)


def _check_positions(planes: Sequence[SlicePlane], source: str) -> None:
    """Compare the position of every slice with its place in the grid, along all three axes of the slice."""
    first = planes[0]
    positions = np.stack([plane.position for plane in planes])
    axes = np.stack([first.column, first.row, first.normal])
    # The median step is not pulled aside by a single displaced slice.
    step = np.median(np.diff(positions, axis=0) @ axes.T, axis=0)
    if np.abs(step[:2]).max() > _LARGEST_SHEAR * abs(step[2]):
        raise VividMedError(
            f"{source}: slices are shifted by {np.abs(step[:2]).max():.2f} mm within their plane from one to the next, "
            f"{step[2]:.2f} mm apart; they do not form one volume, so export the series again"
        )
    places = (positions - first.position) @ axes.T
    grid = np.outer(np.arange(len(planes)), _step(planes) @ axes.T)
    off = np.abs(places - grid)
    tolerance = np.array([*first.spacing, abs(step[2])]) * _OFF_GRID + _ROUNDING
    if (off > tolerance).any():
        jumps = np.abs(np.diff(places, axis=0) - step)
        index = int((jumps / tolerance).max(axis=1).argmax())
        raise VividMedError(
            f"{source}: slices do not lie on one regular grid: from slice {index + 1} to {index + 2} of {len(planes)} "
            f"the position changes by {jumps[index].max():.2f} mm more or less than usual; split the series or export "
            "it again"
        )
