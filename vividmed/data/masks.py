"""Stores binary masks in rows, as a bounding box and the compressed bits inside it.

Boxes are voxel corners ``(z0, y0, x0, z1, y1, x1)``, half-open, on the grid of the row's image.
"""

import zlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from vividmed.errors import VividMedError

Box = tuple[int, int, int, int, int, int]


class PackedMask(TypedDict):
    """One entry of a row's ``masks`` column."""

    target: str
    box: list[int]
    bits: bytes


def bounding_box(mask: np.ndarray) -> Box | None:
    """Smallest half-open box that contains every true voxel.

    Args:
        mask: (D, H, W) array in (z, y, x) order; non-zero means inside.

    Returns:
        ``(z0, y0, x0, z1, y1, x1)``; None if the mask is empty.

    Raises:
        VividMedError: the array is not three-dimensional.
    """
    _require_volume(mask)
    corners: list[tuple[int, int]] = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        if not inside.size:
            return None
        corners.append((int(inside[0]), int(inside[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = corners
    return z0, y0, x0, z1, y1, x1


def pack_mask(target: str, mask: np.ndarray) -> PackedMask:
    """Pack the mask of one target for storage.

    Args:
        target: name of what the mask shows.
        mask: (D, H, W) array in (z, y, x) order; non-zero means inside.

    Returns:
        A dict with ``target``, ``box`` and ``bits``: the mask inside its box, flattened in C order (z slowest, x
        fastest), eight voxels per byte with the first voxel in the highest bit, compressed with zlib. An empty mask
        has the box ``[0] * 6`` and no voxels.

    Raises:
        VividMedError: the array is not three-dimensional.
    """
    box = bounding_box(mask) or (0, 0, 0, 0, 0, 0)
    inside = np.asarray(mask[_slices(box)], dtype=bool)
    bits = zlib.compress(np.packbits(inside.ravel()).tobytes(), 9)
    return PackedMask(target=target, box=list(box), bits=bits)


def unpack_mask(packed: PackedMask, shape: Sequence[int]) -> np.ndarray:
    """Restore a mask on the full grid.

    Args:
        packed: an entry of the ``masks`` column.
        shape: (D, H, W) of the row's image.

    Returns:
        (D, H, W) bool array in (z, y, x) order.

    Raises:
        VividMedError: the box leaves the grid, or the bits are damaged or do not fill the box.
    """
    target, box = packed["target"], [int(v) for v in packed["box"]]
    check_box(box, shape, f"mask of {target!r}", allow_empty=True)
    sizes = [high - low for low, high in zip(box[:3], box[3:], strict=True)]
    count = int(np.prod(sizes))
    try:
        raw = zlib.decompress(packed["bits"])
    except zlib.error as error:
        raise VividMedError(f"mask of {target!r}: bits are damaged ({error}); rebuild the row") from error
    if len(raw) != (count + 7) // 8:
        raise VividMedError(
            f"mask of {target!r}: {len(raw)} bytes of bits do not fill the box {box}; rebuild the row"
        )
    mask = np.zeros(tuple(shape), dtype=bool)
    inside = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count)
    mask[_slices(box)] = inside.reshape(sizes).astype(bool)
    return mask


def check_box(box: Sequence[int], shape: Sequence[int], what: str, *, allow_empty: bool = False) -> None:
    """Check that a box has a volume and lies inside the grid.

    Args:
        box: ``(z0, y0, x0, z1, y1, x1)`` in voxels.
        shape: (D, H, W) of the grid.
        what: what messages call the box.
        allow_empty: accept the all-zero box of an empty mask.

    Raises:
        VividMedError: the box does not have six corners in order, or leaves the grid.
    """
    if len(box) != 6:
        raise VividMedError(f"{what}: a box has 6 numbers z0, y0, x0, z1, y1, x1, got {len(box)}")
    if allow_empty and not any(box):
        return
    for axis, low, high, size in zip("zyx", box[:3], box[3:], shape, strict=True):
        if low >= high:
            raise VividMedError(
                f"{what}: {axis}0 = {low} is not below {axis}1 = {high}; give corners in order"
            )
        if low < 0 or high > size:
            raise VividMedError(
                f"{what}: {axis} range {low} to {high} leaves the grid of {size}; give voxels of the row's image"
            )


def _require_volume(mask: np.ndarray) -> None:
    if mask.ndim != 3:
        raise VividMedError(f"a mask has the axes (z, y, x), got an array of shape {mask.shape}")


def _slices(box: Sequence[int]) -> tuple[slice, slice, slice]:
    z0, y0, x0, z1, y1, x1 = box
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)
