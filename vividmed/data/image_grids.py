"""Sizes and orientations of a row's images, stored in the row so that nothing has to be read to know them.

Every preparation adds the column ``grids`` to its rows. From it :mod:`vividmed.data.sampling.lengths` computes the
lengths of all rows at the start of training. When an image is read, it is compared with its grid. Data sets without the
column work as well: the headers of their images are read instead.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

import nibabel as nib
import numpy as np
from datasets import List, Value
from PIL import ExifTags
from PIL import Image as PillowImage

from vividmed.errors import VividMedError
from vividmed.processing.geometry import triple
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.nifti import in_millimetres, is_nifti
from vividmed.processing.orientation import axis_directions, turning_axes
from vividmed.triples import Triple

COLUMN = "grids"
IMAGE_COLUMNS = ("images", "volumes")
"""The columns of a row that have its images, in the order in which they are numbered."""
FEATURE = List(
    {
        "size": List(Value("int32"), length=3),
        "spacing": List(Value("float64"), length=3),
        "directions": Value("string"),
    }
)
"""For each image, ``images`` before ``volumes``: its size in voxels and its spacing in mm along (z, y, x), and for a
volume the directions in which these axes run, such as ``"SPL"`` (superior, posterior, left)."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31
_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_NIFTI2_SIZES = {_NIFTI2_BYTES.to_bytes(4, order) for order in ("little", "big")}
_PREFIX_BYTES = 8192
_FIRST_TRANSPOSED = 5
_TOLERANCE = 1e-3


class ImageGrid(TypedDict):
    """Grid of one image; see :data:`FEATURE`."""

    size: list[int]
    spacing: list[float]
    directions: str | None


def with_grids(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the column ``grids`` to a row with encoded images; it is null if an image cannot be read."""
    grids = [encoded_grid(file) for name in IMAGE_COLUMNS for file in row.get(name) or ()]
    return {**row, COLUMN: None if None in grids else grids}


def image_grid(image: MedicalImage) -> ImageGrid:
    """Grid of an image that was read."""
    return ImageGrid(
        size=list(image.size),
        spacing=list(image.spacing),
        directions=axis_directions(image.affine) if image.oriented else None,
    )


def encoded_grid(file: Any) -> ImageGrid | None:
    """Grid of an encoded image (``{"bytes": ..., "path": ...}``) from its header; None if that cannot be read."""
    try:
        prefix = _prefix(file)
        return _volume_grid(prefix) if is_nifti(prefix) else _picture_grid(file)
    except Exception:  # whatever is wrong with it is reported when the row is used
        return None


def canonical_size(size: Sequence[int], spacing: Sequence[float], directions: str | None) -> Triple:
    """(D, H, W) of an image after it is turned to the canonical orientation, from its grid.

    Args:
        size: voxels along (z, y, x), as stored.
        spacing: millimetres per voxel along (z, y, x).
        directions: as :func:`axis_directions` names them; None for a 2D image, which is not turned.
    """
    if directions is None:
        return triple(size)
    axes, _ = turning_axes(triple(size), triple(spacing), directions)
    return triple(size[axis] for axis in axes)


def check_grids(grids: Sequence[Mapping[str, Any]], images: Sequence[MedicalImage]) -> None:
    """Compare images with the grids that their row states.

    Raises:
        VividMedError: their number differs, or an image has another size, spacing or orientation.
    """
    remedy = "prepare the data set again, or remove the column"
    if len(grids) != len(images):
        raise VividMedError(
            f"field {COLUMN!r} describes {len(grids)} images, but there are {len(images)}; {remedy}"
        )
    for number, (stated, image) in enumerate(zip(grids, images, strict=True)):
        found = image_grid(image)
        same = (
            list(stated["size"]) == found["size"]
            and stated["directions"] == found["directions"]
            and all(map(_are_close, stated["spacing"], found["spacing"]))
        )
        if not same:
            raise VividMedError(
                f"{image.source}: {_described(found)}, but field {COLUMN!r}, number {number} states "
                f"{_described(stated)}; {remedy}"
            )


_are_close = partial(math.isclose, rel_tol=_TOLERANCE)


def _described(grid: Mapping[str, Any]) -> str:
    size, spacing = (" x ".join(f"{value:g}" for value in grid[name]) for name in ("size", "spacing"))
    return f"{size} voxels of {spacing} mm" + (f" in {grid['directions']}" if grid["directions"] else "")


def _prefix(file: Mapping[str, Any]) -> bytes:
    """The first bytes of an encoded image."""
    if file.get("bytes") is not None:
        return file["bytes"][:_PREFIX_BYTES]
    with Path(file["path"]).open("rb") as stream:
        return stream.read(_PREFIX_BYTES)


def _picture_grid(file: Mapping[str, Any]) -> ImageGrid:
    source = file["path"] if file.get("bytes") is None else BytesIO(file["bytes"])
    with PillowImage.open(source) as image:
        height, width = image.height, image.width
        # Photographs may be stored lying down, and are read upright.
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_TRANSPOSED:
            height, width = width, height
    z, y, x = np.abs(np.diag(picture_affine()))[2::-1].tolist()
    return ImageGrid(size=[1, height, width], spacing=[z, y, x], directions=None)


def _volume_grid(prefix: bytes) -> ImageGrid | None:
    if prefix.startswith(_GZIP_MAGIC):
        prefix = zlib.decompressobj(_GZIP_WINDOW).decompress(prefix, _NIFTI2_BYTES)
    second = prefix[:4] in _NIFTI2_SIZES
    header_class = nib.Nifti2Header if second else nib.Nifti1Header
    header = header_class.from_fileobj(BytesIO(prefix[: _NIFTI2_BYTES if second else _NIFTI1_BYTES]))
    x, y, z = (*header.get_data_shape(), 1, 1)[:3]
    affine = in_millimetres(header, header.get_best_affine())
    if min(x, y, z) < 1 or not np.isfinite(affine).all() or not np.linalg.det(affine):
        return None
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1].tolist()
    return ImageGrid(size=[int(z), int(y), int(x)], spacing=spacing, directions=axis_directions(affine))
