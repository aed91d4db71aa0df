"""A mask cropped to its bounding box, so that a hundred masks of a large volume fit into memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vividmed.data.masks import Box, PackedMask, bounding_box, pack_mask
from vividmed.triples import Triple

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class MaskPatch:
    """Part of a mask that contains all of its voxels.

    Attributes:
        target: name of the structure.
        corner: index (z, y, x) of the patch's first voxel on the full grid.
        inside: (d, h, w) bool array, never empty.
    """

    target: str
    corner: Triple
    inside: np.ndarray

    @classmethod
    def from_mask(cls, target: str, mask: np.ndarray) -> "MaskPatch | None":
        """Crop a (D, H, W) mask; None if it is empty."""
        box = bounding_box(mask)
        if box is None:
            return None
        z0, y0, x0, z1, y1, x1 = box
        return cls(target, (z0, y0, x0), np.asarray(mask[z0:z1, y0:y1, x0:x1]) != 0)

    @classmethod
    def within(cls, target: str, place: Slices, inside: np.ndarray) -> "MaskPatch":
        """Make a patch of a mask that is already cropped to a place of the full grid."""
        return cls(target, (place[0].start, place[1].start, place[2].start), inside)

    @property
    def box(self) -> Box:
        """Smallest half-open box (z0, y0, x0, z1, y1, x1) of the mask on the full grid."""
        box = bounding_box(self.inside)
        assert box is not None  # a patch is never empty
        z, y, x = self.corner
        return box[0] + z, box[1] + y, box[2] + x, box[3] + z, box[4] + y, box[5] + x

    def turned(self, axes: Sequence[int], flips: Sequence[bool], size: Triple) -> "MaskPatch":
        """The patch on a grid whose axis ``i`` is axis ``axes[i]`` of this one, reversed if ``flips[i]``.

        Args:
            axes: order of the old axes.
            flips: whether each new axis is reversed.
            size: (D, H, W) of the old grid.
        """
        inside = self.inside.transpose(axes)
        corner = []
        for axis, flip, length in zip(axes, flips, inside.shape, strict=True):
            start = self.corner[axis]
            corner.append(size[axis] - start - length if flip else start)
        inside = inside[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        return MaskPatch(self.target, (corner[0], corner[1], corner[2]), inside)

    def shifted(self, low: Triple) -> "MaskPatch":
        """The patch on a grid that starts at voxel ``low`` of this one."""
        z, y, x = (corner - first for corner, first in zip(self.corner, low, strict=True))
        return replace(self, corner=(z, y, x))

    def packed(self) -> PackedMask:
        """The mask in the form that rows store."""
        packed = pack_mask(self.target, self.inside)
        packed["box"] = [edge + start for edge, start in zip(packed["box"], self.corner * 2, strict=True)]
        return packed
