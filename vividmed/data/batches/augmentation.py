"""Random flips, turns and changes of brightness of training images, and of everything that is said about them.

An augmentation is drawn once per sample, from the sample's own generator, and then applied to its image, masks, boxes
and words alike. A flip along the patient's left-right axis exchanges left and right in every name and text (the
published code flipped only the image).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch

from vividmed.data.laterality import has_side
from vividmed.data.taxonomy import Taxonomy
from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple

_EQUALIZATION_BINS = 256
_LEFT_RIGHT = 0


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Probabilities and ranges; the defaults are the published ones of grounding pre-training.

    Attributes:
        flip: probability of a flip, per axis.
        rotate: probability of a quarter, half or three-quarter turn in the plane. Images with a target whose name has a
            side are not turned, since the side could no longer be seen.
        intensity: probability of scaling the intensities, and independently of shifting them.
        intensity_range: largest relative scaling, and largest shift, of intensities in [0, 1].
    """

    flip: float = 0.5
    rotate: float = 0.75
    intensity: float = 0.15
    intensity_range: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentation of one sample.

    Attributes:
        flips: whether each of the array axes (z, y, x) is reversed.
        quarter_turns: number of quarter turns in the (y, x) plane, after flipping.
        swaps_sides: whether the flips mirror the patient's left and right.
        scale: factor on intensities in [0, 1].
        shift: added to them afterwards.
    """

    flips: tuple[bool, bool, bool] = (False, False, False)
    quarter_turns: int = 0
    swaps_sides: bool = False
    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def draw(
        cls,
        image: MedicalImage,
        names: list[str],
        *,
        generator: np.random.Generator,
        settings: AugmentationSettings | None = None,
    ) -> Self:
        """Draw an augmentation.

        Args:
            image: image of the sample, which decides on the array axis that runs from right to left; in pictures it is x.
            names: targets of the sample. An image with a structure that has no counterpart on the other side, such as
                the middle lobe of the right lung, is not mirrored.
            generator: generator of the sample.
            settings: None for the published ones.
        """
        settings = settings or AugmentationSettings()
        side = left_right_axis(image)
        flips = [bool(generator.random() < settings.flip) and image.size[axis] > 1 for axis in range(3)]
        taxonomy = Taxonomy.load()
        if any(taxonomy.mirror(name) is None for name in names):
            flips[side] = False
        turns = int(generator.integers(1, 4)) if generator.random() < settings.rotate else 0
        if any(has_side(name) for name in names):
            turns = 0
        reach = settings.intensity_range
        scale = 1 + generator.uniform(-reach, reach) if generator.random() < settings.intensity else 1.0
        shift = generator.uniform(-reach, reach) if generator.random() < settings.intensity else 0.0
        return cls(
            flips=(flips[0], flips[1], flips[2]),
            quarter_turns=turns,
            swaps_sides=flips[side],
            scale=float(scale),
            shift=float(shift),
        )

    def array(self, array: np.ndarray) -> np.ndarray:
        """Flip and turn an array (..., D, H, W)."""
        array = np.flip(array, tuple(axis - 3 for axis in range(3) if self.flips[axis]))
        # Always copied: an axis of one voxel would keep its negative stride, which torch refuses.
        return np.rot90(array, self.quarter_turns, axes=(-2, -1)).copy()

    def image(self, image: MedicalImage) -> MedicalImage:
        """Flip and turn an image; its affine keeps only the spacing and the order of the axes."""
        affine = image.affine
        if self.quarter_turns % 2:
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            affine = affine.copy()
            affine[:3, 0] *= spacing[1] / spacing[0]
            affine[:3, 1] *= spacing[0] / spacing[1]
        return replace(image, array=self.array(image.array), affine=affine)

    def boxes(self, boxes: np.ndarray, size: Triple) -> np.ndarray:
        """Flip and turn corner boxes (n, 6), (z0, y0, x0, z1, y1, x1), of an image of ``size`` (D, H, W)."""
        low, high = np.array(boxes[:, :3], dtype=float), np.array(boxes[:, 3:], dtype=float)
        for axis in range(3):
            if self.flips[axis]:
                low[:, axis], high[:, axis] = size[axis] - high[:, axis], size[axis] - low[:, axis]
        _, height, width = size
        for _ in range(self.quarter_turns):
            # A quarter turn sends (y, x) to (width - x, y).
            low_y, high_y = width - high[:, 2], width - low[:, 2]
            low[:, 2], high[:, 2] = low[:, 1], high[:, 1]
            low[:, 1], high[:, 1] = low_y, high_y
            height, width = width, height
        return np.concatenate([low, high], axis=1)

    def name(self, target: str) -> str:
        """Name of a target in the augmented image."""
        mirrored = Taxonomy.load().mirror(target) if self.swaps_sides else target
        if mirrored is None:
            raise ValueError(f"{target!r} has no counterpart; draw() does not mirror such an image")
        return mirrored

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A localization row with the names of the augmented image; masks, boxes and image stay as they are."""
        if not self.swaps_sides:
            return dict(row)
        renamed = {
            column: [{**entry, "target": self.name(entry["target"])} for entry in row[column]]
            for column in ("masks", "boxes")
        }
        columns = ("targets", "absent", "incomplete")
        names = {column: [self.name(name) for name in row[column]] for column in columns}
        return {**row, **renamed, **names}

    def intensity(self, values: torch.Tensor) -> torch.Tensor:
        """Change the brightness of an image in [0, 1]."""
        return (values * self.scale + self.shift).clamp(0, 1)


def left_right_axis(image: MedicalImage) -> int:
    """Array axis, of (z, y, x), that runs along the patient's left-right direction."""
    if not image.oriented:
        return 2
    world_of_index = nib.orientations.io_orientation(image.affine)[:, 0]
    return 2 - int(np.flatnonzero(world_of_index == _LEFT_RIGHT)[0])


def equalize(values: torch.Tensor) -> torch.Tensor:
    """Equalise the histogram of an image in [0, 1], over the whole volume at once, without the background.

    Args:
        values: (C, D, H, W) float; equal intensities stay equal, also between slices.
    """
    foreground = values[values > 0]
    if not len(foreground):
        return values
    histogram = torch.histc(foreground, _EQUALIZATION_BINS, 0, 1)
    cumulative = histogram.cumsum(0) / histogram.sum()
    bins = (values * (_EQUALIZATION_BINS - 1)).round().long()
    return torch.where(values > 0, cumulative.to(values)[bins], values)
