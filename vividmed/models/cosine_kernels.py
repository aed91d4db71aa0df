"""Patch kernels that see an image's detail from the first step on: cosines instead of noise."""

import math
from collections.abc import Sequence

import torch

_COLOUR_CHANNELS = 4
_FALL = 1.75
"""Exponent of the fall of an image's amplitudes with frequency, which the kernels make up for."""


def cosine_kernels(out_channels: int, in_channels: int, patch_size: Sequence[int]) -> torch.Tensor:
    """Kernels of a patch convolution that respond about equally to all frequencies of an image.

    Neighbouring pixels are nearly equal, so kernels of independent noise all respond to the patch's mean, and a small
    tower takes long to see anything else. These kernels are the cosines of the discrete cosine transform, lowest
    frequencies first. Each is scaled such that its response to an image, whose amplitudes fall with frequency, has a
    standard deviation of about 1. A few channels respond to differences of colour; along depth, slices are averaged.

    Args:
        out_channels: number of kernels.
        in_channels: channels of the image.
        patch_size: (z, y, x) of the kernels.

    Returns:
        (out_channels, in_channels, z, y, x) float32.
    """
    depth, height, width = patch_size
    colour = min(_COLOUR_CHANNELS, out_channels // 8) if in_channels == 3 else 0
    pairs = sorted(
        ((v, u) for v in range(height) for u in range(width)), key=lambda pair: (math.hypot(*pair), pair)
    )
    kernels = torch.zeros(out_channels, in_channels, depth, height, width)
    for number in range(out_channels - colour):
        kernel = _cosine(*pairs[number % len(pairs)], height, width)
        kernels[number] = (kernel / (in_channels * depth)).expand(in_channels, depth, -1, -1)
    for number in range(colour):
        kernel = _cosine(*pairs[number // 2], height, width) / depth
        first = number % 2
        kernels[out_channels - colour + number, first] = kernel
        kernels[out_channels - colour + number, first + 1] = -kernel
    return kernels


def _cosine(v: int, u: int, height: int, width: int) -> torch.Tensor:
    """(height, width) cosine of v half-waves down and u across, scaled for an image's amplitudes."""
    rows = torch.cos(math.pi * (torch.arange(height) + 0.5) * v / height)
    columns = torch.cos(math.pi * (torch.arange(width) + 0.5) * u / width)
    kernel = rows[:, None] * columns
    gain = (1 + math.hypot(v, u)) ** _FALL / math.sqrt(height * width)
    return kernel / kernel.norm() * gain
