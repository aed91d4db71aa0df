"""Initial weights that vary smoothly over the image, for segmenters that do not start from SegVol.

From noise, a place can only be learned position by position, and a kernel answers hardly to the shades that outline an
organ. A small model then draws both lungs whichever is asked for. From smooth weights, a single direction in the
embeddings tells left from right, and another one dark from bright.
"""

import math
from collections.abc import Sequence

import torch

_CELLS = 4


def smooth_positions(shape: Sequence[int]) -> torch.Tensor:
    """Random waves over a grid, up to about one period long, of unit spread (random Fourier features).

    Args:
        shape: (1, C, d, h, w).

    Returns:
        Position embeddings of that shape.
    """
    _, channels, *grid = shape
    axes = [(torch.arange(size) + 0.5) / size * 2 - 1 for size in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    waves = torch.randn(len(grid), channels) * math.pi / 2
    phases = torch.rand(channels) * 2 * math.pi
    return math.sqrt(2) * torch.sin(places @ waves + phases).movedim(-1, 0)[None]


def smooth_kernels(shape: Sequence[int]) -> torch.Tensor:
    """Random kernels that are constant within the cells in which masks are drawn, four to an edge.

    All channels and all slices have the same weights. The kernels answer to a patch of unit brightness with unit spread.

    Args:
        shape: (outputs, channels, z, y, x) of the kernel.

    Returns:
        Kernels of that shape.
    """
    outputs, channels, depth, height, width = shape
    cells = torch.randn(outputs, 1, _CELLS, _CELLS)
    kernels = torch.nn.functional.interpolate(cells, (height, width), mode="nearest")[:, :, None]
    return (kernels * _CELLS / (channels * depth * height * width)).expand(*shape).clone()
