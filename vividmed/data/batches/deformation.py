"""Random deformation of training images and their labels on the model's grid, and loss of image quality.

Anatomy stays true: nothing is mirrored or turned upside down, so that sides, planes and words keep their meaning. The
same in-plane map moves image, masks and boxes. MONAI has such transforms too, but none that moves boxes with masks,
and each reads the global random state of its own object; here every draw is a function of the sample's generator.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from vividmed.models.phrases.grounding import GroundingLabels
from vividmed.processing.boxes import corners_to_fractions, fractions_to_corners

_CONTROL_POINTS = 4
_LEAST_EDGE = 4
_HALF = 0.5
_EQUAL = 1e-4


@dataclass(frozen=True, kw_only=True)
class DeformationSettings:
    """Ranges of the random changes; zero turns a change off.

    Attributes:
        rotation: largest rotation in the plane, in degrees.
        zoom: largest relative change of size; the field of view becomes larger or smaller by as much.
        shift: largest shift along each axis of the plane, as a share of the edge.
        elastic: largest displacement of the elastic deformation's control points, as a share of the edge.
        gamma: largest logarithm of the exponent of intensities in [0, 1].
        contrast: largest relative change of contrast, and largest change of brightness in [0, 1].
        resolution: largest factor by which the resolution is reduced, minus one.
        noise: largest standard deviation of Gaussian noise.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    resolution: float = 0.0
    noise: float = 0.0

    def __bool__(self) -> bool:
        return any(getattr(self, setting.name) for setting in fields(self))

    @property
    def moves(self) -> bool:
        """Whether anything changes its place."""
        return any((self.rotation, self.zoom, self.shift, self.elastic))


class Deformation:
    """The deformation of one image.

    Args:
        settings: ranges to draw from.
        generator: generator of the sample.
        size: (H, W) of the image on the model's grid.
    """

    def __init__(self, settings: DeformationSettings, generator: np.random.Generator, size: tuple[int, int]):
        self.settings = settings
        self.generator = generator
        self.size = size
        self.grid = self._draw_grid() if settings.moves else None

    @classmethod
    def of_image(
        cls, settings: DeformationSettings, generator: np.random.Generator, values: torch.Tensor
    ) -> Self:
        """The deformation of an image (C, D, H, W)."""
        return cls(settings, generator, (values.shape[-2], values.shape[-1]))

    def image(self, values: torch.Tensor) -> torch.Tensor:
        """Deform an image and change its quality.

        Args:
            values: (C, D, H, W) in [0, 1]; outside its field of view, an image is black.
        """
        is_grey = values.shape[0] > 1 and bool((values[1:] - values[:1]).abs().amax() <= _EQUAL)
        changed = values[:1] if is_grey else values
        changed = self._moved(changed)
        changed = self._reduced(changed)
        changed = self._brightened(changed)
        return changed.expand_as(values).contiguous() if is_grey else changed

    def labels(self, labels: GroundingLabels) -> GroundingLabels:
        """Move masks and boxes with the image.

        A box becomes the smallest that contains the moved one; a box that leaves the image keeps its last row or
        column, so that boxes and phrases still match.
        """
        if self.grid is None:
            return labels
        moved = GroundingLabels(**labels)
        for name in ("masks", "ignore"):
            if name in labels:
                moved[name] = self._moved(labels[name].float()) >= _HALF
        if "boxes" in labels:
            moved["boxes"] = self._moved_boxes(labels["boxes"])
        return moved

    def _draw_grid(self) -> torch.Tensor:
        """(1, H, W, 2), for each pixel the place (x, y) in [-1, 1] that it is taken from."""
        settings, generator = self.settings, self.generator
        height, width = self.size
        angle = math.radians(generator.uniform(-settings.rotation, settings.rotation))
        zoom = math.exp(generator.uniform(-1, 1) * math.log1p(settings.zoom))
        shift = generator.uniform(-2, 2, size=2) * settings.shift
        cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
        # Rotation happens in pixels, not in the stretched coordinates of a non-square image.
        matrix = torch.tensor(
            [[[cosine, -sine * height / width, shift[0]], [sine * width / height, cosine, shift[1]]]],
            dtype=torch.float32,
        )
        grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)
        if settings.elastic:
            points = (
                generator.uniform(-2, 2, size=(1, 2, _CONTROL_POINTS, _CONTROL_POINTS)) * settings.elastic
            )
            smooth = F.interpolate(
                torch.from_numpy(points).float(), (height, width), mode="bicubic", align_corners=True
            )
            grid = grid + smooth.permute(0, 2, 3, 1)
        return grid

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        if self.grid is None:
            return values
        flat = values.reshape(1, -1, *values.shape[-2:])
        return F.grid_sample(flat, self.grid, padding_mode="zeros", align_corners=False).view_as(values)

    def _moved_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        assert self.grid is not None
        height, width = self.size
        corners = fractions_to_corners(boxes, (1, height, width))
        place = (self.grid[0] + 1) / 2 * torch.tensor([width, height])
        moved = []
        for corner in corners:
            inside = (place >= corner[[2, 1]]).all(-1) & (place < corner[[5, 4]]).all(-1)
            moved.append(_bounds(inside, corner, place))
        if not moved:
            return boxes
        return corners_to_fractions(torch.stack(moved), (1, height, width)).to(boxes.dtype)

    def _reduced(self, values: torch.Tensor) -> torch.Tensor:
        """Reduce the resolution in the plane, and back to the grid."""
        factor = 1 + self.generator.uniform(0, self.settings.resolution) if self.settings.resolution else 1.0
        size = [max(_LEAST_EDGE, round(edge / factor)) for edge in self.size]
        if size == list(self.size):
            return values
        flat = values.reshape(1, -1, *values.shape[-2:])
        coarse = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(coarse, self.size, mode="bilinear", align_corners=False).view_as(values)

    def _brightened(self, values: torch.Tensor) -> torch.Tensor:
        settings, generator = self.settings, self.generator
        if settings.gamma:
            exponent = math.exp(generator.uniform(-settings.gamma, settings.gamma))
            values = values.clamp_min(0) ** exponent
        if settings.contrast:
            scale, shift = generator.uniform(-settings.contrast, settings.contrast, size=2)
            values = (values - _HALF) * (1 + scale) + _HALF + shift / 2
        if settings.noise:
            deviation = generator.uniform(0, settings.noise)
            noise = generator.standard_normal(values.shape, dtype=np.float32)
            values = values + deviation * torch.from_numpy(noise)
        return values.clamp(0, 1)


def _bounds(inside: torch.Tensor, corner: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Corners (z0, y0, x0, z1, y1, x1) of the pixels inside; of the pixel nearest to the box if there are none."""
    if not inside.any():
        centre = (corner[[2, 1]] + corner[[5, 4]]) / 2
        distance = (place - centre).square().sum(-1)
        inside = distance == distance.min()
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    low = torch.stack([corner[0], rows[0].to(corner), columns[0].to(corner)])
    high = torch.stack([corner[3], rows[-1].to(corner) + 1, columns[-1].to(corner) + 1])
    return torch.cat([low, high])
