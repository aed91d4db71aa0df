"""Resizing as the published code did it, for weights that were trained on its pixels.

For the vision tower: images that shrink are smoothed by a Gaussian, with zeros around the image, and interpolated; then
zeros are added up to whole patches. For the segmenters: resizing and padding are one interpolation without smoothing,
with zeros around the image, so that its border fades into the padding.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

_TRUNCATE = 4.0


def smooth_and_resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (C, D, H, W) for the vision tower.

    Args:
        image: float32.
        size: (D, H, W) of the result. Along an axis that shrinks by a factor, the Gaussian's sigma is
            (factor - 1) / 2 voxels.
    """
    size = tuple(size)
    before = tuple(image.shape[1:])
    if before == size:
        return image
    for axis, (old, new) in enumerate(zip(before, size, strict=True), start=1):
        if old > new:
            image = _smooth(image, axis, (old / new - 1) / 2)
    return F.interpolate(image[None], size, mode="trilinear", align_corners=False)[0]


def resize_and_pad(
    image: torch.Tensor, size: Sequence[int], padding: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Resize (C, D, H, W) and pad it, in one linear interpolation, for the segmenters.

    Args:
        image: float32.
        size: (D, H, W) after resizing.
        padding: voxels to add (before, after) on every axis.
    """
    if tuple(image.shape[1:]) == tuple(size):
        return F.pad(image, [amount for pair in reversed(padding) for amount in pair])
    for axis, (new, pair) in enumerate(zip(size, padding, strict=True), start=1):
        image = _interpolate(image, axis, new, pair)
    return image


def _smooth(image: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Convolve an axis with a Gaussian integrated over each voxel, cut off at four sigma and not normalised."""
    radius = int(max(sigma * _TRUNCATE, 0.5) + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    scale = math.sqrt(0.5) / sigma
    kernel = 0.5 * (torch.erf(scale * (offsets + 0.5)) - torch.erf(scale * (offsets - 0.5)))
    columns = image.movedim(axis, -1)
    rows = columns.reshape(-1, 1, columns.shape[-1])
    smoothed = F.conv1d(rows, kernel.clamp(min=0)[None, None], padding=radius)
    return smoothed.reshape(columns.shape).movedim(-1, axis)


def _interpolate(image: torch.Tensor, axis: int, size: int, padding: tuple[int, int]) -> torch.Tensor:
    """Interpolate an axis linearly at the centres of ``size`` voxels and of the padding around them."""
    old = image.shape[axis]
    places = torch.arange(-padding[0], size + padding[1], dtype=torch.float64)
    centres = (places + 0.5) * (old / size) - 0.5
    lower = centres.floor()
    upper_weight = centres - lower
    shape = [1] * image.ndim
    shape[axis] = len(places)

    def part(index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        inside = (index >= 0) & (index < old)
        weight = torch.where(inside, weight, 0.0).to(image.dtype).reshape(shape)
        return image.index_select(axis, index.clamp(0, old - 1).long()) * weight

    return part(lower, 1 - upper_weight) + part(lower + 1, upper_weight)
