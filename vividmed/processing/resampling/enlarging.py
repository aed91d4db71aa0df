"""Enlargement of probabilities to the voxels that reach a threshold, without the memory of the enlarged probabilities."""

from typing import NamedTuple

import numpy as np
import torch

BLOCK_VOXELS = 2**18
"""Voxels of the enlarged grid that are interpolated at a time, so that they stay in the processor's cache."""


def enlarge_and_threshold(values: torch.Tensor, threshold: float, *, out: np.ndarray) -> None:
    """Interpolate values trilinearly and set the voxels that reach a threshold.

    Equal, up to rounding, to ``F.interpolate(..., mode="trilinear", align_corners=False) >= threshold``. An interpolated
    value never exceeds those it lies between, so only voxels next to a value that reaches the threshold are computed.

    Args:
        values: (d, h, w).
        threshold: a number above the values that mean nothing.
        out: (D, H, W) bool, all False; voxels that reach the threshold become True.
    """
    values = values.float().cpu()
    ranges: list[slice] = []
    samples_of: list[_Samples] = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        reached = (values.amax(others) >= threshold).nonzero()
        samples = _Samples.along(values.shape[axis], out.shape[axis])
        near = (
            ((samples.low <= reached[-1]) & (samples.high >= reached[0])).nonzero()
            if len(reached)
            else reached
        )
        if not len(near):
            return
        ranges.append(slice(int(near[0]), int(near[-1]) + 1))
        part = samples.part(ranges[-1])
        first, last = int(part.low[0]), int(part.high[-1])
        values = values.narrow(axis, first, last + 1 - first)
        samples_of.append(part.shifted(-first))
    (slices, rows, columns), (of_z, of_y, of_x) = ranges, samples_of
    values = of_x.take(values, 2)
    step = max(1, BLOCK_VOXELS // ((rows.stop - rows.start) * (columns.stop - columns.start)))
    for start in range(slices.start, slices.stop, step):
        block = slice(start, min(start + step, slices.stop))
        planes = of_z.part(slice(block.start - slices.start, block.stop - slices.start)).take(values, 0)
        # NumPy compares several times as fast as torch does on the CPU.
        np.greater_equal(of_y.take(planes, 1).numpy(), threshold, out=out[block, rows, columns])


class _Samples(NamedTuple):
    """Where the points of an axis lie between those of another: ``low`` and ``high`` (n,) int64, ``weight`` of high."""

    low: torch.Tensor
    high: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def along(cls, length: int, new_length: int) -> "_Samples":
        centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) * (length / new_length) - 0.5
        centres = centres.clamp(0, length - 1)
        low = centres.floor().long()
        return cls(low, (low + 1).clamp(max=length - 1), (centres - low).float())

    def part(self, points: slice) -> "_Samples":
        return _Samples(*(values[points] for values in self))

    def shifted(self, offset: int) -> "_Samples":
        return _Samples(self.low + offset, self.high + offset, self.weight)

    def take(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Interpolate along one axis of (d, h, w)."""
        low = values.index_select(axis, self.low)
        if not bool(self.weight.any()):
            return low
        shape = [1, 1, 1]
        shape[axis] = -1
        return low.lerp_(values.index_select(axis, self.high), self.weight.view(shape))
