"""Largest images that are read.

Sizes are taken from headers and compared with these limits before memory is spent, so that a damaged or malicious
file of a few kilobytes cannot exhaust it. Both limits can be changed through environment variables, which worker
processes inherit.
"""

import math
import os
from collections.abc import Sequence

from PIL import Image

from vividmed.errors import VividMedError

MAX_BYTES_VARIABLE = "VIVIDMED_MAX_IMAGE_BYTES"
MAX_PIXELS_VARIABLE = "VIVIDMED_MAX_IMAGE_PIXELS"

_DEFAULTS = {MAX_BYTES_VARIABLE: 2**31, MAX_PIXELS_VARIABLE: 2**26}
"""2 GiB per image (a CT of 4096 slices of 512 x 512 pixels), and 67 million pixels per slice (8192 x 8192)."""


def check_image_size(source: object, size: Sequence[int], *, bytes_per_voxel: float = 1) -> None:
    """Check the size that a header claims.

    Args:
        source: file, for the error.
        size: voxels along each axis; the last two axes of a 2D image or DICOM frame, any order for a volume.
        bytes_per_voxel: of the stored values, all channels together.

    Raises:
        VividMedError: an axis is empty, or the image needs more memory than the limit.
    """
    if min(size, default=0) < 1:
        raise VividMedError(f"{source}: an image of size {_by(size)} is empty; give an image with voxels")
    claimed = math.prod(size) * bytes_per_voxel
    limit = _limit(MAX_BYTES_VARIABLE)
    if claimed > limit:
        raise VividMedError(
            f"{source}: an image of size {_by(size)} takes {claimed / 2**20:,.0f} MiB, more than the limit of "
            f"{limit / 2**20:,.0f} MiB; if the file is sound, set {MAX_BYTES_VARIABLE} to a larger number of bytes"
        )


def check_slice_size(source: object, height: int, width: int) -> None:
    """Check the size of a 2D image, or of one slice.

    Raises:
        VividMedError: more pixels than the limit.
    """
    limit = _limit(MAX_PIXELS_VARIABLE)
    if height * width > limit:
        raise VividMedError(
            f"{source}: a 2D image of {height} x {width} pixels is larger than the limit of {limit:,} pixels; make it "
            f"smaller, or set {MAX_PIXELS_VARIABLE} to a larger number"
        )


def raise_pillow_limit() -> None:
    """Lift Pillow's own limit, which is twice its ``MAX_IMAGE_PIXELS``, to a larger one that the user has set."""
    if os.environ.get(MAX_PIXELS_VARIABLE) and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, _limit(MAX_PIXELS_VARIABLE))


def max_image_bytes() -> int:
    """Largest number of bytes that the voxels of one image may take."""
    return _limit(MAX_BYTES_VARIABLE)


def _limit(variable: str) -> int:
    text = os.environ.get(variable)
    if not text:
        return _DEFAULTS[variable]
    if not text.isdecimal() or not int(text):
        raise VividMedError(f"{variable}={text!r} is not a limit; set it to a whole number above 0")
    return int(text)


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
