"""Canonical orientation of volumes: slices first, every axis running right, anterior or superior.

A volume may be stored in any of 48 ways (six axis orders, eight flip patterns). The model always sees one of three
orientations, named by the direction in which (z, y, x) run: ``SRA`` for axial slices, ``ASR`` for coronal ones and
``RAS`` for sagittal ones. The released weights were trained with these orientations. They depend on the body and
not on the file, so that left stays left however the file was written.
"""

import nibabel as nib
import numpy as np

from vividmed.triples import Triple

_WORLD_AXES = {"R": 0, "A": 1, "S": 2}
_ORIENTATIONS = ("SRA", "ASR", "RAS")
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
    world_of_index = nib.orientations.io_orientation(affine)
    array_axis = {int(world): 2 - index for index, (world, _) in enumerate(world_of_index)}
    reversed_ = {int(world): bool(direction < 0) for world, direction in world_of_index}
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)[::-1]
    world_size = tuple(size[array_axis[world]] for world in range(3))
    world_spacing = tuple(float(spacing[array_axis[world]]) for world in range(3))
    worlds = [_WORLD_AXES[letter] for letter in canonical_orientation(world_size, world_spacing)]
    first, second, third = worlds
    return (
        (array_axis[first], array_axis[second], array_axis[third]),
        (reversed_[first], reversed_[second], reversed_[third]),
    )


def canonical_orientation(size: tuple[int, ...], spacing: tuple[float, ...]) -> str:
    """Infer the acquisition plane from the voxel grid, by the published rule.

    The plane whose two spacings agree best; if all agree equally well, the plane with equal sizes; else axial.

    Args:
        size: voxels along the right, anterior and superior direction.
        spacing: millimetres per voxel along the same directions.

    Returns:
        ``"SRA"`` (axial), ``"ASR"`` (coronal) or ``"RAS"`` (sagittal).
    """
    planes = {code: [_WORLD_AXES[letter] for letter in code[1:]] for code in _ORIENTATIONS}
    mismatch = {code: abs(spacing[a] - spacing[b]) for code, (a, b) in planes.items()}
    smallest = min(mismatch.values())
    if max(mismatch.values()) - smallest > _TOLERANCE * min(spacing):
        close = [code for code in _ORIENTATIONS if mismatch[code] - smallest <= _TOLERANCE * min(spacing)]
        return close[0]
    square = [code for code, (a, b) in planes.items() if size[a] == size[b]]
    return square[0] if square and len(square) < len(planes) else _ORIENTATIONS[0]
