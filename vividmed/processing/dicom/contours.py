"""Contours of DICOM structure sets (RTSTRUCT), drawn as masks on the grid of an image."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from vividmed.errors import VividMedError
from vividmed.processing.dicom.files import read_dataset
from vividmed.processing.medical_image import MedicalImage

_STRUCTURE_SET = "RTSTRUCT"
_COORDINATES = 3
_LEAST_POINTS = 3
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_OFF_SLICE = 0.51
"""Largest distance of a contour's points from their slice, in slices."""
_TILT = 0.1
"""Largest difference along depth between the points of one contour, in slices."""


def contour_names(path: str | Path) -> list[str]:
    """Names of the regions of interest of a structure set, in its order.

    Raises:
        VividMedError: the file is not a readable structure set.
    """
    return list(_regions(_read(Path(path)), str(path)))


def read_contours(
    path: str | Path, image: MedicalImage, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Draw the contours of a structure set on the grid of the image that they were drawn on.

    A pixel belongs to a region if its centre lies inside an odd number of the region's contours on its slice, so that
    contours inside others are holes. Slices are not interpolated: a slice without a contour is empty.

    Args:
        path: the RTSTRUCT file.
        image: the series, as :func:`vividmed.processing.reading.read_image` gives it.
        names: regions to draw; None for all.

    Returns:
        (D, H, W) bool mask of each region, by its name. A region without closed contours has an empty mask.

    Raises:
        VividMedError: the file is not a readable structure set, has no region of a given name or several, or a contour
            does not lie on a slice of the image.
    """
    path = Path(path)
    if not image.oriented:
        raise VividMedError(
            f"{image.source}: its place in the patient is unknown, so contours cannot be drawn on it; give the DICOM "
            "series that they were drawn on"
        )
    regions = _regions(_read(path), str(path))
    for name in names or ():
        if name not in regions:
            raise VividMedError(
                f"{path}: has no region of interest {name!r}; it has {', '.join(regions) or 'none'}"
            )
    to_index = np.linalg.inv(image.affine)
    masks = {}
    for name in regions if names is None else names:
        mask = np.zeros(image.size, dtype=bool)
        for number, points in enumerate(regions[name], start=1):
            _draw(mask, _to_grid(points, to_index), where=f"{path}: contour {number} of {name!r}")
        masks[name] = mask
    return masks


def _read(path: Path) -> Dataset:
    dataset = read_dataset(path)
    if dataset.get("Modality") != _STRUCTURE_SET:
        raise VividMedError(
            f"{path}: modality {dataset.get('Modality')!r} is not a structure set; give an {_STRUCTURE_SET} file"
        )
    return dataset


def _regions(dataset: Dataset, source: str) -> dict[str, list[np.ndarray]]:
    """Points (n, 3) in RAS+ mm of the closed planar contours of each region, by its name."""
    try:
        names = {int(roi.ROINumber): str(roi.ROIName) for roi in dataset.StructureSetROISequence}
        twice = [name for name, count in Counter(names.values()).items() if count > 1]
        if twice:
            raise VividMedError(
                f"{source}: several regions of interest are called {twice[0]!r}; rename all but one"
            )
        regions: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
        for drawn in dataset.get("ROIContourSequence") or ():
            for contour in drawn.get("ContourSequence") or ():
                if contour.ContourGeometricType != "CLOSED_PLANAR":
                    continue
                points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, _COORDINATES)
                if len(points) >= _LEAST_POINTS:
                    regions[names[int(drawn.ReferencedROINumber)]].append(points * _LPS_TO_RAS)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise VividMedError(
            f"{source}: the contours cannot be read ({error!r}); export the structure set again"
        ) from error
    return regions


def _to_grid(points: np.ndarray, to_index: np.ndarray) -> np.ndarray:
    """(n, 3) voxel indices (z, y, x) of points in millimetres."""
    return (points @ to_index[:3, :3].T + to_index[:3, 3])[:, ::-1]


def _draw(mask: np.ndarray, points: np.ndarray, *, where: str) -> None:
    """Invert the mask inside a closed contour, which has to lie on one of its slices."""
    if not np.isfinite(points).all() or np.ptp(points[:, 0]) > _TILT:
        raise VividMedError(
            f"{where}: does not lie in the plane of a slice; give the series that it was drawn on"
        )
    depth = float(points[:, 0].mean())
    level = round(depth)
    if abs(depth - level) > _OFF_SLICE or not 0 <= level < mask.shape[0]:
        raise VividMedError(
            f"{where}: lies at slice {depth:.1f} of {mask.shape[0]}; give the series that it was drawn on"
        )
    mask[level] ^= _inside(points[:, 1:], mask.shape[1:])


def _inside(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(H, W) bool, pixels whose centre lies inside a polygon (n, 2) of (y, x), by the even-odd rule."""
    height, width = size
    inside = np.zeros((height, width), dtype=bool)
    start, end = points, np.roll(points, -1, axis=0)
    columns = np.arange(width)
    first, last = max(0, int(np.ceil(points[:, 0].min()))), int(np.floor(points[:, 0].max()))
    for row in range(first, min(last, height - 1) + 1):
        crosses = (start[:, 0] <= row) != (end[:, 0] <= row)
        a, b = start[crosses], end[crosses]
        at = a[:, 1] + (row - a[:, 0]) / (b[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
        inside[row] = (at[:, None] < columns).sum(0) % 2 == 1
    return inside
