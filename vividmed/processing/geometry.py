"""Token budgets, and the plan that maps an image to the model's grid and results back, exactly.

Coordinates are continuous and in voxels: voxel ``i`` of an axis covers ``[i, i + 1)``. Arrays and boxes are in the
axis order (z, y, x).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from vividmed.errors import VividMedError
from vividmed.processing.orientation import canonical_axes
from vividmed.processing.resampling.enlarging import enlarge_and_threshold
from vividmed.processing.resampling.published import resize_and_pad, smooth_and_resize
from vividmed.triples import Triple

T = TypeVar("T")
RandomGenerator = np.random.Generator | np.random.RandomState

_SLICE_VOXELS = 1 << 20
DEPTH_JITTER_STD = 0.25
"""Standard deviation of the published training jitter of log2(patch depth)."""


class DepthTokens(NamedTuple):
    """How the slices of an image become visual tokens: ``stride = patch * pool`` slices per token."""

    patch: int
    pool: int
    stride: int
    tokens: int


def depth_tokens(
    size: int,
    *,
    base_patch: int,
    base_pool: int,
    max_tokens: int,
    generator: RandomGenerator | None = None,
    jitter_std: float = DEPTH_JITTER_STD,
) -> DepthTokens:
    """Choose the patch depth so that ``size`` slices give at most ``max_tokens`` tokens.

    Up to ``max_tokens`` slices keep one token each. Deeper images are pooled, and their patch depth is the power of
    two nearest to the ideal one on a log scale, at most ``base_patch``.

    Args:
        size: number of slices.
        base_patch: patch depth of the patch embedding, a power of two.
        base_pool: pooling of tokens along depth.
        max_tokens: the largest number of tokens along depth.
        generator: draws log2 of the patch depth around the ideal one, as in training; None takes the ideal one.
        jitter_std: standard deviation of the draw.
    """
    if size <= max_tokens:
        return DepthTokens(patch=1, pool=1, stride=1, tokens=size)
    exponent = math.log2(size / (base_pool * max_tokens))
    if generator is not None:
        exponent = generator.normal(exponent, jitter_std)
    patch = 2 ** min(max(round(exponent), 0), base_patch.bit_length() - 1)
    stride = patch * base_pool
    return DepthTokens(patch=patch, pool=base_pool, stride=stride, tokens=min(-(-size // stride), max_tokens))


def largest_resize(size: tuple[int, int], stride: tuple[int, int], max_tokens: int) -> tuple[int, int]:
    """Find the largest size of the same aspect ratio that, padded to the stride, has at most ``max_tokens`` tokens.

    Images smaller than the budget are enlarged. The token count only grows where an axis passes a multiple of its
    stride, so the best scale is reached with one of the axes at such a multiple.

    Args:
        size: height and width in pixels.
        stride: pixels per token along height and width.
        max_tokens: the largest number of tokens in the plane, at least 1.

    Returns:
        Height and width in pixels, at least 1 each.
    """
    scales = []
    for axis, other in ((0, 1), (1, 0)):
        # ceil(scale * size[other] / stride[other]) in whole numbers, for scale = tokens * stride[axis] / size[axis]
        grown, unit = stride[axis] * size[other], size[axis] * stride[other]
        low, high = 0, max_tokens
        while low < high:
            tokens = (low + high + 1) // 2
            low, high = (
                (tokens, high) if tokens * -(-tokens * grown // unit) <= max_tokens else (low, tokens - 1)
            )
        scales.append((low * stride[axis], size[axis]))
    # The larger scale, in whole numbers too: fractions would take most of the time at the start of training.
    (first, of_first), (second, of_second) = scales
    above, below = (first, of_first) if first * of_second >= second * of_first else (second, of_second)
    return max(_rounded(above * size[0], below), 1), max(_rounded(above * size[1], below), 1)


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number of a fraction; of two, the even one."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest + whole % 2 > denominator)


@dataclass(frozen=True, kw_only=True)
class ResizePlan:
    """The invertible mapping of one image from its original grid to the model's grid.

    original grid -> re-ordered and flipped axes -> resize -> symmetric zero padding -> model grid.

    Attributes:
        original_size: (D, H, W) of the image as read.
        axes: axis ``i`` after re-orientation is axis ``axes[i]`` of the original grid.
        flips: whether axis ``i`` is reversed, after re-ordering.
        resized_size: size after resizing, before padding.
        padding: voxels added (before, after) on every axis.
        patch_size: patch of the vision tower (z, y, x) for this image.
        pool_size: pooling of its tokens (z, y, x).
        affine: 4 x 4, voxel index (x, y, z) of the original grid -> RAS+ mm.
    """

    original_size: Triple
    axes: Triple
    flips: tuple[bool, bool, bool]
    resized_size: Triple
    padding: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    patch_size: Triple
    pool_size: Triple
    affine: tuple[tuple[float, ...], ...]

    @property
    def oriented_size(self) -> Triple:
        """Size after re-orientation, before resizing."""
        return triple(self.original_size[axis] for axis in self.axes)

    @property
    def model_size(self) -> Triple:
        """(D, H, W) of the tensor that the model takes."""
        return triple(n + sum(pad) for n, pad in zip(self.resized_size, self.padding, strict=True))

    @property
    def grid_size(self) -> Triple:
        """Number of visual tokens along (z, y, x)."""
        stride = (patch * pool for patch, pool in zip(self.patch_size, self.pool_size, strict=True))
        return triple(n // s for n, s in zip(self.model_size, stride, strict=True))

    @property
    def num_patch_tokens(self) -> int:
        """Number of visual tokens, without the two that mark the beginning and end of the image."""
        return math.prod(self.grid_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can represent."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ResizePlan":
        """Invert :meth:`to_dict`, also after a JSON round trip."""
        return cls(**{field.name: _as_tuple(data[field.name]) for field in dataclasses.fields(cls)})

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image (..., D, H, W) from the original to the model grid; float32, linear with anti-aliasing."""
        return self._pad(resize(self._orient(image).float(), self.resized_size))

    def apply_eight_bit(self, image: torch.Tensor) -> torch.Tensor:
        """Map a uint8 image (..., D, H, W) to [0, 1] on the model grid, exactly as ``apply(image.float() / 255)``.

        Slices are converted a few at a time, so that no large image exists in float32.
        """
        image = self._orient(image)
        depth, height, width = self.resized_size
        slices = image.reshape(-1, *image.shape[-2:])
        parts = slices.split(max(1, _SLICE_VOXELS // math.prod(slices.shape[1:])))
        resized = [resize(part.float().div_(255)[:, None], (1, height, width)) for part in parts]
        planes = torch.cat(resized).reshape(*image.shape[:-2], height, width)
        return self._pad(resize(planes, (depth, height, width)))

    def apply_published(self, image: torch.Tensor, *, grounding: bool) -> torch.Tensor:
        """Map an image (C, D, H, W) from the original to the model grid as the published code did; float32.

        Args:
            image: on the original grid, in [0, 1].
            grounding: as the segmenters saw it, otherwise as the vision tower did.
        """
        image = self._orient(image).float()
        if grounding:
            return resize_and_pad(image, self.resized_size, self.padding)
        return self._pad(smooth_and_resize(image, self.resized_size))

    def apply_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Map binary masks (..., D, H, W) from the original to the model grid; a voxel is set if half covered."""
        return self.apply(mask) >= 0.5

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Map values (..., D, H, W), such as mask logits, from the model to the original grid, trilinearly."""
        # Turned first, while they are few.
        values = self._disorient(self._unpad(values))
        restored = F.interpolate(
            values.reshape(1, -1, *values.shape[-3:]).float(),
            self.original_size,
            mode="trilinear",
            align_corners=False,
        )
        return restored.reshape(*values.shape[:-3], *self.original_size)

    def restore_mask(self, mask: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
        """Map masks or probabilities (..., D, H, W) to the original grid; true where they reach the threshold, above 0.

        Cheaper than :meth:`restore` and a comparison, above all for what is small in a large image.
        """
        values = self._disorient(self._unpad(mask))
        restored = np.zeros((*values.shape[:-3], *self.original_size), dtype=bool)
        for at in np.ndindex(values.shape[:-3]):
            enlarge_and_threshold(values[at], threshold, out=restored[at])
        return torch.from_numpy(restored)

    def points_to_model(self, points: torch.Tensor) -> torch.Tensor:
        """Map points (..., 3) in (z, y, x) from the original to the model grid, in float64."""
        size, flips, scale, offset = self._constants()
        points = points.double()[..., list(self.axes)]
        return torch.where(flips, size - points, points) * scale + offset

    def points_to_original(self, points: torch.Tensor) -> torch.Tensor:
        """Invert :meth:`points_to_model`."""
        size, flips, scale, offset = self._constants()
        points = (points.double() - offset) / scale
        return torch.where(flips, size - points, points)[..., np.argsort(self.axes).tolist()]

    def boxes_to_model(self, boxes: torch.Tensor) -> torch.Tensor:
        """Map corner boxes (..., 6) (z0, y0, x0, z1, y1, x1) from the original to the model grid, in float64."""
        return _map_corners(boxes, self.points_to_model)

    def boxes_to_original(self, boxes: torch.Tensor) -> torch.Tensor:
        """Invert :meth:`boxes_to_model`."""
        return _map_corners(boxes, self.points_to_original)

    def oriented_view(self, array: np.ndarray) -> np.ndarray:
        """View an array (..., D, H, W) of the original grid with its axes re-ordered and flipped, without a copy."""
        view = np.moveaxis(array, [axis - 3 for axis in self.axes], [-3, -2, -1])
        return view[..., *(slice(None, None, -1 if flip else None) for flip in self.flips)]

    def _orient(self, image: torch.Tensor) -> torch.Tensor:
        if tuple(image.shape[-3:]) != self.original_size:
            raise VividMedError(
                f"an array of size {tuple(image.shape[-3:])} is not on the original grid {self.original_size} of this "
                "plan; give the image, or a mask drawn on it, as it was read"
            )
        image = image.movedim([axis - 3 for axis in self.axes], [-3, -2, -1])
        # Flipping along no axis would copy the image.
        return image.flip([axis - 3 for axis in range(3) if self.flips[axis]]) if any(self.flips) else image

    def _disorient(self, values: torch.Tensor) -> torch.Tensor:
        values = values.flip([axis - 3 for axis in range(3) if self.flips[axis]])
        return values.movedim([-3, -2, -1], [axis - 3 for axis in self.axes])

    def _unpad(self, values: torch.Tensor) -> torch.Tensor:
        if values.shape[-3:] != self.model_size:
            raise VividMedError(
                f"values of size {tuple(values.shape[-3:])} are not on the model grid {self.model_size} of this plan; "
                "interpolate them to the size of pixel_values first"
            )
        for axis, ((before, _), length) in enumerate(zip(self.padding, self.resized_size, strict=True)):
            values = values.narrow(axis - 3, before, length)
        return values

    def _pad(self, image: torch.Tensor) -> torch.Tensor:
        return F.pad(image, [amount for pad in reversed(self.padding) for amount in pad])

    def _constants(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        before = triple(amount for amount, _ in self.padding)
        return _point_constants(self.oriented_size, self.flips, self.resized_size, before)


@lru_cache(maxsize=256)
def _point_constants(
    size: Triple, flips: tuple[bool, bool, bool], resized: Triple, before: Triple
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Size, flips, scale and offset of a mapping of points, as tensors that must not be changed."""
    old, new, offset = (torch.tensor(values, dtype=torch.float64) for values in (size, resized, before))
    return old, torch.tensor(flips), new / old, offset


def plan_resize(
    size: Triple,
    *,
    affine: np.ndarray,
    oriented: bool,
    patch_size: Triple,
    pool_size: Triple,
    max_image_tokens: int,
    max_slice_tokens: int,
    generator: RandomGenerator | None = None,
) -> ResizePlan:
    """Plan how to fit an image into the token budget, by the published rules.

    Depth is never enlarged; the plane is scaled, aspect kept, to fill what the depth leaves of the budget; then
    zeros are added on both sides up to whole tokens.

    Args:
        size: (D, H, W) of the image as read.
        affine: 4 x 4, voxel index (x, y, z) -> RAS+ mm.
        oriented: turn the axes to the canonical orientation (:mod:`vividmed.processing.orientation`).
        patch_size: base patch (z, y, x) of the vision tower; a single slice has patch depth 1.
        pool_size: pooling of visual tokens (z, y, x).
        max_image_tokens: budget of visual tokens of one image.
        max_slice_tokens: budget along depth.
        generator: jitters the patch depth in training, see :func:`depth_tokens`.

    References:
        VividMed: A Vision Language Model with Versatile Visual Grounding for Medicine, section on dynamic patch size.
    """
    axes, flips = canonical_axes(size, affine) if oriented else ((0, 1, 2), (False, False, False))
    depth = size[axes[0]]
    along_depth, plane, stride = _fit_budget(
        triple(size[axis] for axis in axes),
        patch_size=patch_size,
        pool_size=pool_size,
        max_image_tokens=max_image_tokens,
        max_slice_tokens=max_slice_tokens,
        generator=generator,
    )
    resized = (min(depth, along_depth.tokens * along_depth.stride), *plane)
    missing = [-n % s for n, s in zip(resized, stride, strict=True)]
    return ResizePlan(
        original_size=size,
        axes=axes,
        flips=flips,
        resized_size=resized,
        padding=triple((n // 2, n - n // 2) for n in missing),
        patch_size=(along_depth.patch, *patch_size[1:]),
        pool_size=(along_depth.pool, *pool_size[1:]),
        affine=tuple(tuple(row) for row in np.asarray(affine, dtype=float).tolist()),
    )


@lru_cache(maxsize=1 << 16)
def count_tokens(
    size: Triple, *, patch_size: Triple, pool_size: Triple, max_image_tokens: int, max_slice_tokens: int
) -> int:
    """Count the visual tokens of an image as :func:`plan_resize` would plan it, from its size.

    Args:
        size: (D, H, W) in canonical orientation.
        patch_size: as in :func:`plan_resize`.
        pool_size: as in :func:`plan_resize`.
        max_image_tokens: as in :func:`plan_resize`.
        max_slice_tokens: as in :func:`plan_resize`.
    """
    along_depth, plane, stride = _fit_budget(
        size,
        patch_size=patch_size,
        pool_size=pool_size,
        max_image_tokens=max_image_tokens,
        max_slice_tokens=max_slice_tokens,
    )
    depth = min(size[0], along_depth.tokens * along_depth.stride)
    return math.prod(-(-extent // step) for extent, step in zip((depth, *plane), stride, strict=True))


def _fit_budget(
    size: Triple,
    *,
    patch_size: Triple,
    pool_size: Triple,
    max_image_tokens: int,
    max_slice_tokens: int,
    generator: RandomGenerator | None = None,
) -> tuple[DepthTokens, tuple[int, int], Triple]:
    """Tokens along depth, size in the plane, and voxels per token (z, y, x) of an image in canonical orientation."""
    depth, height, width = size
    along_depth = depth_tokens(
        depth,
        base_patch=patch_size[0],
        base_pool=pool_size[0],
        max_tokens=max_slice_tokens,
        generator=generator,
    )
    stride = (along_depth.stride, patch_size[1] * pool_size[1], patch_size[2] * pool_size[2])
    plane = largest_resize((height, width), stride[1:], max_image_tokens // along_depth.tokens)
    return along_depth, plane, stride


def resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (..., D, H, W) linearly; axes that shrink are low-pass filtered first.

    ``torch.nn.functional.interpolate`` filters in two dimensions only, so the plane is resized before the depth.
    """
    depth, height, width = size
    lead, planes = image.shape[:-3], image.reshape(-1, *image.shape[-3:])
    if planes.shape[-2:] != (height, width):
        planes = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    if planes.shape[1] != depth:
        columns = planes.reshape(1, len(planes), -1, height * width)
        columns = F.interpolate(
            columns, (depth, height * width), mode="bilinear", antialias=True, align_corners=False
        )
        planes = columns.reshape(-1, depth, height, width)
    return planes.reshape(*lead, depth, height, width)


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """One value for every axis (z, y, x)."""
    z, y, x = values
    return z, y, x


def _map_corners(boxes: torch.Tensor, mapping: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    first, second = mapping(boxes[..., :3]), mapping(boxes[..., 3:])
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
