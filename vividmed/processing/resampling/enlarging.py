"""Enlargement of probabilities to the voxels that reach a threshold, without the memory of the enlarged probabilities."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

BLOCK_VALUES = 2**18
"""Values that are interpolated at a time, so that they stay in the processor's cache."""
MOST_EDGES = 1 / 16
"""Share of neighbours on either side of the threshold above which it is cheaper to interpolate all voxels."""


def enlarge_and_threshold(values: torch.Tensor, threshold: float, *, out: np.ndarray) -> None:
    """Interpolate values trilinearly and set the voxels that reach a threshold.

    Equal, up to rounding, to ``F.interpolate(..., mode="trilinear", align_corners=False) >= threshold``. An interpolated
    value never leaves the range of those it lies between. So voxels far from every value that reaches the threshold are
    left out, and along the z or y axis, whichever grows more, only those are interpolated that lie between values on
    either side of it.

    Args:
        values: (d, h, w).
        threshold: a number above the values that mean nothing.
        out: (D, H, W) bool, all False; voxels that reach the threshold become True.
    """
    values = values.float().cpu()
    reached = values.numpy() >= threshold
    ranges: list[slice] = []
    samples_of: list[_Samples] = []
    for axis in range(3):
        places = np.flatnonzero(reached.any(tuple(other for other in range(3) if other != axis)))
        if not len(places):
            return
        samples = _samples_along(values.shape[axis], out.shape[axis])
        near = np.flatnonzero((samples.low.numpy() <= places[-1]) & (samples.high.numpy() >= places[0]))
        if not len(near):
            return
        ranges.append(slice(int(near[0]), int(near[-1]) + 1))
        part = samples.part(ranges[-1])
        first, last = int(part.low[0]), int(part.high[-1])
        values = values.narrow(axis, first, last + 1 - first)
        samples_of.append(part.shifted(-first))
    of_z, of_y, of_x = samples_of
    # The axis that grows most comes last: values are then few until only those next to an edge are interpolated.
    # Whole rows are gathered several times as fast as single values, so along x the axes change places.
    values = of_x.take(values.permute(2, 0, 1).contiguous(), 0).permute(1, 2, 0).contiguous()
    if of_z.growth > of_y.growth:
        _enlarge_in_blocks(values.transpose(0, 1), of_y, of_z, threshold, out[tuple(ranges)].swapaxes(0, 1))
    else:
        _enlarge_in_blocks(values, of_z, of_y, threshold, out[tuple(ranges)])


def _enlarge_in_blocks(
    values: torch.Tensor, first: "_Samples", second: "_Samples", threshold: float, out: np.ndarray
) -> None:
    """Interpolate (d, h, w) along its first axis, then along its second; ``out`` (D, H, w) is true where that reaches."""
    step = max(1, BLOCK_VALUES // values[0].numel())
    for start in range(0, len(first.low), step):
        block = slice(start, start + step)
        out[block] = _enlarge_rows(first.part(block).take(values, 0).contiguous(), second, threshold)


class _Samples(NamedTuple):
    """Where the points of an axis lie between those of another: ``low`` and ``high`` (n,) int64, ``weight`` of high."""

    low: torch.Tensor
    high: torch.Tensor
    weight: torch.Tensor

    @property
    def growth(self) -> float:
        """New points for each old one."""
        return len(self.low) / (int(self.high[-1]) + 1)

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


@lru_cache(maxsize=64)
def _samples_along(length: int, new_length: int) -> _Samples:
    """The samples of an enlarged axis; must not be changed."""
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) * (length / new_length) - 0.5
    centres = centres.clamp(0, length - 1)
    low = centres.floor().long()
    return _Samples(low, (low + 1).clamp(max=length - 1), (centres - low).float())


def _enlarge_rows(planes: torch.Tensor, samples: _Samples, threshold: float) -> np.ndarray:
    """Interpolate (d, h, w) along its rows to (d, H, w), true where that reaches the threshold."""
    reached = planes.numpy() >= threshold
    height, width = planes.shape[1:]
    edges = np.flatnonzero(reached[:, :-1] != reached[:, 1:])
    if len(edges) > MOST_EDGES * planes.numel():
        step = max(1, BLOCK_VALUES // (len(samples.low) * width))
        parts = [samples.take(part, 1).numpy() >= threshold for part in planes.split(step)]
        return np.concatenate(parts)
    low_rows = samples.low.numpy()
    enlarged = np.take(reached, low_rows, axis=1)
    if not len(edges):
        return enlarged
    slices, remainder = np.divmod(edges, (height - 1) * width)
    rows, columns = np.divmod(remainder, width)
    places, values = torch.from_numpy(edges + slices * width), planes.flatten()
    low, high = values[places], values[places + width]
    # The new rows between two neighbouring rows lie side by side.
    bounds = np.searchsorted(low_rows, np.arange(height))
    first, count = bounds[rows], np.diff(bounds)[rows]
    at, points = (slices * enlarged.shape[1] + first) * width + columns, enlarged.reshape(-1)
    for offset in range(int(count.max())):
        if int(count.min()) <= offset:
            kept = np.flatnonzero(offset < count)
            first, count, at = first[kept], count[kept], at[kept]
            low, high = low[torch.from_numpy(kept)], high[torch.from_numpy(kept)]
        weights = samples.weight[torch.from_numpy(first + offset)]
        points[at + offset * width] = low.lerp(high, weights).numpy() >= threshold
    return enlarged
