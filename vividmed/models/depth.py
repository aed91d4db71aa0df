"""Convolutions whose extent in depth follows the image, and resampling of grids of weights.

Axes are (z, y, x) throughout. A 2D image is a volume of one slice. Its patches, and those of thin volumes, are
thinner than the kernel, which is then reduced in depth, so that all images share one set of weights (VividMed,
section 3.2, "effective depth patch").
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import nn

from vividmed.errors import VividMedError


class DepthAdaptiveConv3d(nn.Conv3d):
    """Non-overlapping patch convolution; a patch thinner than the kernel sums neighbouring kernel slices.

    Summing leaves the response to an image that is constant along z unchanged. In the same way, an image of one channel
    stands for equal channels.
    """

    def __init__(self, in_channels: int, out_channels: int, patch_size: Sequence[int]):
        depth, height, width = patch_size
        super().__init__(in_channels, out_channels, (depth, height, width), stride=(depth, height, width))

    def forward(self, input: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:  # type: ignore[override]
        """Embed patches.

        Args:
            input: (N, C or 1, D, H, W); D, H, W multiples of ``patch_size``.
            patch_size: (z, y, x) of this image. z divides the kernel's depth; y and x equal the kernel's.

        Returns:
            (N, out_channels, D / z, H / y, W / x).

        Raises:
            VividMedError: ``patch_size`` does not fit the kernel or the image.
        """
        depth, height, width = (int(size) for size in patch_size)
        kernel = tuple(self.weight.shape[2:])
        if (height, width) != kernel[1:] or depth < 1 or kernel[0] % depth:
            raise VividMedError(
                f"patch size {(depth, height, width)} does not fit the kernel {kernel}: "
                "y and x must be equal and the kernel's depth a multiple of z"
            )
        if any(size % patch for size, patch in zip(input.shape[2:], (depth, height, width), strict=True)):
            raise VividMedError(
                f"an image of size {tuple(input.shape[2:])} is not a multiple of its patch size "
                f"{(depth, height, width)}: pad it, as the processor does"
            )
        weight = self.weight
        if input.shape[1] == 1:
            weight = weight.sum(dim=1, keepdim=True)
        if depth != kernel[0]:
            weight = weight.unflatten(2, (depth, kernel[0] // depth)).sum(dim=3)
        return F.conv3d(input, weight, self.bias, stride=(depth, height, width))


class DepthAdaptiveConvTranspose3d(nn.ConvTranspose3d):
    """Upsampling by two; where depth must not grow, the kernel is averaged over its two slices.

    Blocks of the result do not overlap, so each voxel becomes a block by one matrix product. Blocks stay nested, with
    their channels last: norms and activations need no other order, and only what is small in the end is rearranged.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, input: torch.Tensor, upsample_depth: bool) -> torch.Tensor:  # type: ignore[override]
        """(..., C), channels last, to (..., 2 or 1, 2, 2, out_channels), the block of each voxel in z, y, x."""
        weight = self.weight if upsample_depth else self.weight.mean(dim=2, keepdim=True)
        matrix = weight.movedim(1, -1).flatten(1)
        bias = None if self.bias is None else self.bias.repeat(matrix.shape[1] // self.out_channels)
        return F.linear(input, matrix.T, bias).unflatten(-1, (*weight.shape[2:], self.out_channels))


def resample(grid: torch.Tensor, shape: Sequence[int], *, conserve_sum: bool = False) -> torch.Tensor:
    """Resample a grid of weights to another spatial shape, in float32.

    Axes that shrink are area-averaged; axes that grow are interpolated, trilinearly in 3D and bicubically in 2D
    (the published rule; released weights depend on the difference).

    Args:
        grid: (N, C, H, W) or (N, C, D, H, W).
        shape: new spatial shape.
        conserve_sum: scale by the ratio of sizes, so that the sum over the grid (a kernel's response to a constant)
            stays about the same.

    Returns:
        (N, C, ...) with the new shape, in ``grid``'s dtype.
    """
    old = tuple(grid.shape[2:])
    new = tuple(int(size) for size in shape)
    if old == new:
        return grid
    result = grid.float()
    reduced = tuple(min(pair) for pair in zip(old, new, strict=True))
    if reduced != old:
        result = F.interpolate(result, reduced, mode="area")
    if reduced != new:
        mode = "trilinear" if grid.ndim == 5 else "bicubic"
        result = F.interpolate(result, new, mode=mode, align_corners=False)
    if conserve_sum:
        result = result * (prod(old) / prod(new))
    return result.to(grid.dtype)
