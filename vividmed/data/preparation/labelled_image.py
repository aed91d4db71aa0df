"""An image with its masks and boxes, reoriented, cropped and shrunk together."""

from dataclasses import dataclass, replace

import numpy as np

from vividmed.data.masks import Box
from vividmed.data.preparation.resampling import limited_size, scaled_box, shrink, shrink_mask
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.orientation import canonical_axes
from vividmed.triples import Triple

_Named = tuple[tuple[str, Box], ...]


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and what is located in it.

    Attributes:
        image: (C, D, H, W) with its affine.
        masks: masks on the grid of the image.
        boxes: target and (z0, y0, x0, z1, y1, x1), half-open, on the same grid.
    """

    image: MedicalImage
    masks: tuple[MaskPatch, ...] = ()
    boxes: _Named = ()

    def turned(self) -> "LabelledImage":
        """Turn to the canonical orientation of the body: slices first, axes towards right, anterior, superior.

        Images whose orientation in the patient is unknown stay as they are.
        """
        size = self.image.size
        if not self.image.oriented:
            return self
        axes, flips = canonical_axes(size, self.image.affine)
        if axes == (0, 1, 2) and not any(flips):
            return self
        array = self.image.array.transpose(0, *(axis + 1 for axis in axes))
        array = array[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in flips))]
        # Index (x, y, z) of the turned image -> index of this one.
        mapping = np.zeros((4, 4))
        mapping[3, 3] = 1
        for new, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            mapping[2 - axis, 2 - new] = -1 if flip else 1
            mapping[2 - axis, 3] = size[axis] - 1 if flip else 0
        image = replace(self.image, array=array, affine=self.image.affine @ mapping)
        boxes = tuple((target, _turned_box(box, axes, flips, size)) for target, box in self.boxes)
        return LabelledImage(image, tuple(m.turned(axes, flips, size) for m in self.masks), boxes)

    def cropped(self, above: float) -> "LabelledImage":
        """Crop to the smallest box that contains all voxels above a value, all masks and all boxes."""
        foreground = np.any(self.image.array > above, axis=0)
        located = [mask.box for mask in self.masks] + [box for _, box in self.boxes]
        patch = MaskPatch.from_mask("foreground", foreground)
        located += [patch.box] if patch else []
        if not located:
            return self
        z0, y0, x0 = (min(box[i] for box in located) for i in range(3))
        z1, y1, x1 = (max(box[i] for box in located) for i in range(3, 6))
        affine = self.image.affine.copy()
        affine[:3, 3] = (affine @ [x0, y0, z0, 1])[:3]
        image = replace(self.image, array=self.image.array[:, z0:z1, y0:y1, x0:x1], affine=affine)
        shift = (z0, y0, x0) * 2
        boxes = tuple(
            (target, tuple(edge - first for edge, first in zip(box, shift, strict=True)))
            for target, box in self.boxes
        )
        return LabelledImage(image, tuple(mask.shifted((z0, y0, x0)) for mask in self.masks), boxes)  # type: ignore[arg-type]

    def limited(self, *, max_in_plane: int, max_depth: int | None) -> "LabelledImage":
        """Shrink to what :func:`~vividmed.data.preparation.resampling.limited_size` allows."""
        size = self.image.size
        new = limited_size(size, self.image.spacing, max_in_plane=max_in_plane, max_depth=max_depth)
        if new == size:
            return self
        scale = np.array([n / m for n, m in zip(size, new, strict=True)])[::-1]
        affine = self.image.affine.copy()
        affine[:3, :3] = self.image.affine[:3, :3] * scale
        affine[:3, 3] = (self.image.affine @ [*(scale - 1) / 2, 1])[:3]
        image = replace(self.image, array=shrink(self.image.array, new), affine=affine)
        masks = tuple(shrink_mask(mask, size, new) for mask in self.masks)
        boxes = tuple((target, scaled_box(box, size, new)) for target, box in self.boxes)
        return LabelledImage(image, masks, boxes)  # type: ignore[arg-type]


def _turned_box(box: Box, axes: Triple, flips: tuple[bool, bool, bool], size: Triple) -> Box:
    low, high = [], []
    for axis, flip in zip(axes, flips, strict=True):
        first, last = box[axis], box[axis + 3]
        low.append(size[axis] - last if flip else first)
        high.append(size[axis] - first if flip else last)
    return low[0], low[1], low[2], high[0], high[1], high[2]
