"""Images of any kind -> tensors for the vision tower, and the plan that leads back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vividmed.errors import VividMedError
from vividmed.processing.geometry import RandomGenerator, ResizePlan, plan_resize, triple
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.reading import ImageSource, as_list, read_image
from vividmed.triples import Triple

_QUANTILE_SAMPLE = 1 << 20
"""Voxels that percentiles are taken from, evenly spaced: exact enough, and fast on whole-body volumes."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """One image, ready for the model.

    Attributes:
        pixel_values: (3, D, H, W) float32, mean and standard deviation normalised, for the vision tower.
        grounding_values: (3, D, H, W) float32 in [0, 1], for the segmenters.
        plan: from the original grid to the model's and back; holds the patch and pool size.
    """

    pixel_values: torch.Tensor
    grounding_values: torch.Tensor
    plan: ResizePlan


class VividMedImageProcessor(BaseImageProcessor):
    """Scale intensities, turn volumes to the canonical orientation, resize, pad and normalise.

    Eight-bit images are used as they are. Other intensities are scaled to [0, 1] between two percentiles of the
    voxels above the minimum (which is often the padding around the field of view), or by a fixed window. Padding is
    black. Resizing is linear and low-pass filtered (``torch.nn.functional.interpolate`` with ``antialias``), so that
    torchvision is not needed.

    Args:
        patch_size: base patch (z, y, x) of the vision tower, in voxels; z a power of two.
        pool_size: pooling of visual tokens (z, y, x).
        max_image_tokens: budget of visual tokens of an image, without its begin and end token.
        max_slice_tokens: budget along depth.
        percentiles: lower and upper percentile that become 0 and 1.
        window: (level, width) in HU that is used instead, except for images known not to be CT.
        image_mean: subtracted from the channels in [0, 1].
        image_std: divides the channels.
    """

    model_input_names = ["pixel_values", "patch_sizes", "pool_sizes"]  # noqa: RUF012

    def __init__(
        self,
        *,
        patch_size: Sequence[int] = (16, 16, 16),
        pool_size: Sequence[int] = (2, 2, 2),
        max_image_tokens: int = 144,
        max_slice_tokens: int = 4,
        percentiles: Sequence[float] = (0.5, 99.5),
        window: Sequence[float] | None = None,
        image_mean: Sequence[float] = tuple(OPENAI_CLIP_MEAN),
        image_std: Sequence[float] = tuple(OPENAI_CLIP_STD),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size = _triple("patch_size", patch_size)
        self.pool_size = _triple("pool_size", pool_size)
        self.max_image_tokens = max_image_tokens
        self.max_slice_tokens = max_slice_tokens
        self.percentiles = tuple(percentiles)
        self.window = None if window is None else tuple(window)
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)
        self._validate()

    def preprocess(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        grounding: bool = False,
        generator: RandomGenerator | None = None,
    ) -> BatchFeature:
        """Prepare images of one batch, in order.

        Args:
            images: one image or several, see :func:`vividmed.processing.reading.read_image`.
            grounding: give ``grounding_values`` too.
            generator: jitters the patch depth, for training.

        Returns:
            ``pixel_values`` (and ``grounding_values``): list of (3, D, H, W); ``patch_sizes`` and ``pool_sizes``:
            (num_images, 3) int64 in (z, y, x); ``geometry``: list of :class:`ResizePlan`.
        """
        sources = as_list(images)
        prepared = [self.prepare(source, generator=generator) for source in sources]
        data = {
            "pixel_values": [image.pixel_values for image in prepared],
            "patch_sizes": torch.tensor(
                [image.plan.patch_size for image in prepared], dtype=torch.int64
            ).reshape(-1, 3),
            "pool_sizes": torch.tensor(
                [image.plan.pool_size for image in prepared], dtype=torch.int64
            ).reshape(-1, 3),
            "geometry": [image.plan for image in prepared],
        }
        if grounding:
            data["grounding_values"] = [image.grounding_values for image in prepared]
        return BatchFeature(data)

    def prepare(self, source: ImageSource, *, generator: RandomGenerator | None = None) -> PreparedImage:
        """Read and prepare one image.

        Raises:
            VividMedError: the image cannot be read, holds NaN or infinite values, or is constant.
        """
        image = read_image(source)
        plan = self._plan(image.size, image.affine, oriented=image.oriented, generator=generator)
        values = plan.apply(self.scale_intensity(image)).clamp(0, 1).expand(3, -1, -1, -1).contiguous()
        return PreparedImage(self.normalize(values), values, plan)

    def plan(self, size: Triple, affine: np.ndarray | None = None) -> ResizePlan:
        """How an image of a given shape will be resized, without its voxels.

        Args:
            size: (D, H, W) as read.
            affine: of an oriented volume, 4 x 4, voxel index (x, y, z) -> RAS+ mm; None for pictures and arrays.
        """
        return self._plan(size, picture_affine() if affine is None else affine, oriented=affine is not None)

    def scale_intensity(self, image: MedicalImage) -> torch.Tensor:
        """Intensities as float32 in [0, 1], (C, D, H, W), on the original grid.

        Raises:
            VividMedError: the image holds NaN or infinite values, or is constant.
        """
        array = image.array
        if array.dtype == np.uint8:
            return torch.from_numpy(array.astype(np.float32)) / 255
        low, high = self._intensity_range(image)
        values = torch.from_numpy(array.astype(np.float32))
        return values.sub_(low).div_(high - low).clamp_(0, 1)

    def normalize(self, values: torch.Tensor) -> torch.Tensor:
        """Subtract mean and divide by standard deviation; (3, D, H, W)."""
        mean, std = (torch.tensor(x).reshape(3, 1, 1, 1) for x in (self.image_mean, self.image_std))
        return (values - mean) / std

    def _intensity_range(self, image: MedicalImage) -> tuple[float, float]:
        array = image.array
        lowest, highest = float(array.min()), float(array.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            count = int((~np.isfinite(array)).sum())
            raise VividMedError(
                f"{image.source}: holds {count} NaN or infinite values; repair or remove the image"
            )
        if lowest == highest:
            raise VividMedError(
                f"{image.source}: every voxel has the value {lowest:g}; give an image with content"
            )
        if self.window is not None and image.modality in (None, "CT"):
            level, width = self.window
            return level - width / 2, level + width / 2
        sample = array.reshape(-1)[:: -(-array.size // _QUANTILE_SAMPLE)]
        sample = sample[sample > lowest]
        low, high = np.percentile(sample, self.percentiles) if sample.size else (lowest, highest)
        return (float(low), float(high)) if low < high else (lowest, highest)

    def _plan(
        self,
        size: Triple,
        affine: np.ndarray,
        *,
        oriented: bool,
        generator: RandomGenerator | None = None,
    ) -> ResizePlan:
        return plan_resize(
            size,
            affine=affine,
            oriented=oriented,
            patch_size=self.patch_size,
            pool_size=self.pool_size,
            max_image_tokens=self.max_image_tokens,
            max_slice_tokens=self.max_slice_tokens,
            generator=generator,
        )

    def _validate(self) -> None:
        depth = self.patch_size[0]
        problems = {
            "patch_size": depth & (depth - 1) and "needs a power of two along z",
            "max_slice_tokens": self.max_slice_tokens < 1 and "must be at least 1",
            "max_image_tokens": self.max_image_tokens < self.max_slice_tokens
            and "must be at least max_slice_tokens",
            "percentiles": not 0 <= self.percentiles[0] < self.percentiles[-1] <= 100
            and "must rise within 0 to 100",
            "window": self.window is not None and not self.window[-1] > 0 and "needs a width above 0",
            "image_mean": len(self.image_mean) != 3 and "needs 3 values",
            "image_std": not (len(self.image_std) == 3 and min(self.image_std) > 0)
            and "needs 3 values above 0",
        }
        for name, problem in problems.items():
            if problem:
                raise VividMedError(f"image processor: {name}={getattr(self, name)} {problem}")


def _triple(name: str, value: Sequence[int]) -> Triple:
    if len(value) != 3 or any(int(n) != n or n < 1 for n in value):
        raise VividMedError(
            f"image processor: {name}={value} needs three whole numbers above 0, in the order (z, y, x)"
        )
    return triple(int(n) for n in value)
