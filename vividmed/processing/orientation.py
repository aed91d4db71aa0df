"""Canonical orientation of volumes: slices first, every axis running right, anterior or superior.

A volume may be stored in any of 48 ways (six axis orders, eight flip patterns). The model always sees one of three
orientations, named by the direction in which (z, y, x) run: ``SRA`` for axial slices, ``ASR`` for coronal ones and
``RAS`` for sagittal ones. The released weights were trained with these orientations. They depend on the body and
not on the file, so that left stays left however the file was written.
"""

from functools import lru_cache

import nibabel as nib
import numpy as np

from vividmed.triples import Triple

_WORLD_AXES = {"R": 0, "A": 1, "S": 2}
_WORLD_LETTERS = ("RL", "AP", "SI")
_REVERSED = "LPI"
_ORIENTATIONS = ("SRA", "ASR", "RAS")
# World axes along the height and the width of a slice of each.
_PLANES = tuple((_WORLD_AXES[code[1]], _WORLD_AXES[code[2]]) for code in _ORIENTATIONS)
_TOLERANCE = 1e-3


def canonical_axes(size: Triple, affine: np.ndarray) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Find the axis order and flips that bring a volume to its canonical orientation.

    Oblique volumes are turned to the nearest canonical orientation and not resampled.

    Args:
        size: (D, H, W) of the array.
        affine: 4 x 4, voxel index (x, y, z) -> RAS+ mm; array axis ``i`` is index axis ``2 - i``.

    Returns:
        ``axes`` and ``flips``: canonical axis ``i`` is array axis ``axes[i]``, reversed where ``flips[i]``.
    """
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)[::-1]
    return turning_axes(size, tuple(spacing.tolist()), axis_directions(affine))


def axis_directions(affine: np.ndarray) -> str:
    """Name the directions in which array axes run, such as ``"SPL"``: superior, posterior, left for (z, y, x).

    Args:
        affine: 4 x 4, voxel index (x, y, z) -> RAS+ mm; array axis ``i`` is index axis ``2 - i``.
    """
    return "".join(nib.orientations.aff2axcodes(affine))[::-1]


def turning_axes(
    size: Triple, spacing: tuple[float, float, float], directions: str
) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Find the axis order and flips of :func:`canonical_axes` for a volume described without its affine.

    Args:
        size: (D, H, W) of the array.
        spacing: millimetres per voxel along (z, y, x).
        directions: as :func:`axis_directions` names them.
    """
    axis_of, reversed_ = _axes_of(directions)
    plane = canonical_orientation(
        tuple(size[axis] for axis in axis_of), tuple(spacing[axis] for axis in axis_of)
    )
    first, second, third = (axis_of[_WORLD_AXES[letter]] for letter in plane)
    return (first, second, third), (reversed_[first], reversed_[second], reversed_[third])


@lru_cache
def _axes_of(directions: str) -> tuple[Triple, tuple[bool, ...]]:
    """The array axis along each world axis, and whether each array axis runs against its world axis."""
    right, anterior, superior = (
        next(axis for axis in range(3) if directions[axis] in letters) for letters in _WORLD_LETTERS
    )
    return (right, anterior, superior), tuple(letter in _REVERSED for letter in directions)


def canonical_orientation(size: tuple[int, ...], spacing: tuple[float, ...]) -> str:
    """Infer the acquisition plane from the voxel grid, by the published rule.

    The plane whose two spacings agree best; if all agree equally well, the plane with equal sizes; else axial.

    Args:
        size: voxels along the right, anterior and superior direction.
        spacing: millimetres per voxel along the same directions.

    Returns:
        ``"SRA"`` (axial), ``"ASR"`` (coronal) or ``"RAS"`` (sagittal).
    """
    mismatch = [abs(spacing[first] - spacing[second]) for first, second in _PLANES]
    smallest, tolerance = min(mismatch), _TOLERANCE * min(spacing)
    if max(mismatch) - smallest > tolerance:
        close = (
            code for code, value in zip(_ORIENTATIONS, mismatch, strict=True) if value - smallest <= tolerance
        )
        return next(close)
    square = [
        code
        for code, (first, second) in zip(_ORIENTATIONS, _PLANES, strict=True)
        if size[first] == size[second]
    ]
    return square[0] if square and len(square) < len(_PLANES) else _ORIENTATIONS[0]
