"""Turn images of any type into tensors for the vision tower, with the plan that leads back to their voxels."""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import TensorType, logging

from vividmed.errors import VividMedError
from vividmed.processing.geometry import RandomGenerator, ResizePlan, count_tokens, plan_resize, triple
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.reading import ImageSource, as_list, read_image
from vividmed.triples import Triple

_QUANTILE_SAMPLE = 1 << 20
"""Voxels that percentiles are taken from, evenly spaced: exact enough, and fast on whole-body volumes."""
_HOUNSFIELD_FAT = -50
_HOUNSFIELD_BONE = 500
RESAMPLINGS = ("antialias", "published")
_LARGEST_BUDGET = 1 << 16
_LARGEST_PATCH = 1 << 10

logger = logging.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """One image, ready for the model.

    Attributes:
        pixel_values: (3, D, H, W) float32, normalised by mean and standard deviation, for the vision tower.
        grounding_values: (3, D, H, W) float32 in [0, 1], for the segmenters; grey channels share their memory.
        plan: from the original grid to the model's and back; contains the patch and pool size.
    """

    pixel_values: torch.Tensor
    grounding_values: torch.Tensor
    plan: ResizePlan


class VividMedImageProcessor(BaseImageProcessor):
    """Scales intensities, turns volumes to the canonical orientation, resizes, pads and normalises.

    Eight-bit images are used as they are. Other intensities are scaled to [0, 1] between two percentiles of the
    voxels above the minimum (which is often the padding around the field of view), or by a fixed window. Padding is
    black. Resizing is linear; ``resampling`` says how images that shrink are filtered.

    Args:
        patch_size: base patch (z, y, x) of the vision tower, in voxels; z is a power of two.
        pool_size: pooling of visual tokens (z, y, x).
        max_image_tokens: largest number of visual tokens per image, without its begin and end token.
        max_slice_tokens: largest number of visual tokens along depth.
        percentiles: lower and upper percentile that become 0 and 1.
        window: (level, width) in HU to use instead, except for images known not to be CT. A CT image whose values do not
            look like HU is refused; an image of unknown modality then falls back to the percentiles, with a warning.
        resampling: ``"antialias"`` resizes with a low-pass filter of the right width (``interpolate`` with ``antialias``)
            for vision tower and segmenters alike. ``"published"`` resizes as the published code did, for weights that
            were trained on its pixels: with a Gaussian for the vision tower, without any filter for the segmenters.
        image_mean: mean that is subtracted from the channels in [0, 1].
        image_std: standard deviation that divides the channels.
    """

    model_input_names = ["pixel_values", "patch_sizes", "pool_sizes"]  # noqa: RUF012
    settings = (
        "patch_size",
        "pool_size",
        "max_image_tokens",
        "max_slice_tokens",
        "percentiles",
        "window",
        "resampling",
        "image_mean",
        "image_std",
    )
    """Names of the arguments above, which a call may override."""

    def __init__(
        self,
        *,
        patch_size: Sequence[int] = (16, 16, 16),
        pool_size: Sequence[int] = (2, 2, 2),
        max_image_tokens: int = 144,
        max_slice_tokens: int = 4,
        percentiles: Sequence[float] = (0.5, 99.5),
        window: Sequence[float] | None = None,
        resampling: str = "antialias",
        image_mean: Sequence[float] = tuple(OPENAI_CLIP_MEAN),
        image_std: Sequence[float] = tuple(OPENAI_CLIP_STD),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size = _triple("patch_size", patch_size)
        self.pool_size = _triple("pool_size", pool_size)
        self.max_image_tokens = _whole("max_image_tokens", max_image_tokens)
        self.max_slice_tokens = _whole("max_slice_tokens", max_slice_tokens)
        self.percentiles = _numbers("percentiles", percentiles, 2)
        self.window = None if window is None else _numbers("window", window, 2)
        self.resampling = resampling
        self.image_mean = _numbers("image_mean", image_mean, 3)
        self.image_std = _numbers("image_std", image_std, 3)
        self._validate()

    def preprocess(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        grounding: bool = False,
        return_tensors: str | TensorType | None = "pt",
        generator: RandomGenerator | None = None,
        **settings: Any,
    ) -> BatchFeature:
        """Prepare the images of one batch, in order.

        Args:
            images: one image or a list of images, see :func:`vividmed.processing.reading.read_image`.
            grounding: return ``grounding_values`` too.
            return_tensors: ``"pt"`` or None; both return PyTorch tensors.
            generator: jitters the patch depth, for training.
            **settings: arguments of the class with other values for this call only, such as ``window``.

        Returns:
            ``pixel_values`` (and ``grounding_values``): list of (3, D, H, W); ``patch_sizes`` and ``pool_sizes``:
            (num_images, 3) int64 in (z, y, x); ``geometry``: list of :class:`ResizePlan`.

        Raises:
            VividMedError: an image as in :meth:`prepare`, or an unknown or unusable setting.
        """
        if settings:
            changed = self.with_settings(**settings)
            return changed.preprocess(
                images, grounding=grounding, return_tensors=return_tensors, generator=generator
            )
        if return_tensors not in ("pt", None):
            raise VividMedError(f"return_tensors={return_tensors!r} is not supported; use 'pt'")
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

    def with_settings(self, **settings: Any) -> "VividMedImageProcessor":
        """Copy this image processor with other values of some settings.

        Raises:
            VividMedError: a setting is unknown, or has a value that cannot be used.
        """
        for name in settings:
            if name not in self.settings:
                nearest = difflib.get_close_matches(name, self.settings, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(self.settings)}"
                raise VividMedError(f"image processor: unknown argument {name!r}; {hint}")
        return type(self)(**({name: getattr(self, name) for name in self.settings} | settings))

    def prepare(self, source: ImageSource, *, generator: RandomGenerator | None = None) -> PreparedImage:
        """Read and prepare one image.

        Raises:
            VividMedError: the image cannot be read, contains NaN or infinite values, is constant, or is a CT whose values
                do not fit the window.
        """
        image = read_image(source)
        plan = self._plan(image.size, image.affine, oriented=image.oriented, generator=generator)
        if self.resampling == "published":
            scaled = self.scale_intensity(image)
            seen, grounded = (plan.apply_published(scaled, grounding=g).clamp(0, 1) for g in (False, True))
        else:
            seen = grounded = self._on_model_grid(image, plan).clamp_(0, 1)
        return PreparedImage(self.normalize(seen), grounded.expand(3, -1, -1, -1), plan)

    def _on_model_grid(self, image: MedicalImage, plan: ResizePlan) -> torch.Tensor:
        if image.array.dtype != np.uint8:
            return plan.apply(self.scale_intensity(image))
        array = np.require(image.array, requirements=("C", "W"))
        return plan.apply_eight_bit(torch.from_numpy(array))

    def plan(self, size: Triple, affine: np.ndarray | None = None) -> ResizePlan:
        """Plan how an image of a given shape will be resized, without its voxels.

        Args:
            size: (D, H, W) as read.
            affine: of an oriented volume, 4 x 4, voxel index (x, y, z) -> RAS+ mm; None for 2D images and arrays.
        """
        return self._plan(size, picture_affine() if affine is None else affine, oriented=affine is not None)

    def count_tokens(self, size: Triple) -> int:
        """Count the visual tokens of an image in canonical orientation, without its begin and end token.

        Args:
            size: (D, H, W).
        """
        return count_tokens(
            size,
            patch_size=self.patch_size,
            pool_size=self.pool_size,
            max_image_tokens=self.max_image_tokens,
            max_slice_tokens=self.max_slice_tokens,
        )

    def scale_intensity(self, image: MedicalImage) -> torch.Tensor:
        """Scale intensities to float32 in [0, 1], (C, D, H, W), on the original grid.

        Raises:
            VividMedError: the image contains NaN or infinite values, is constant, or is a CT whose values do not fit the
                window.
        """
        return self.intensity_scale(image)(image.array)

    def intensity_scale(self, image: MedicalImage) -> Callable[[np.ndarray], torch.Tensor]:
        """How the intensities of an image become float32 in [0, 1], for any part of its array.

        Raises:
            VividMedError: as in :meth:`scale_intensity`.
        """
        is_eight_bit = image.array.dtype == np.uint8
        low, high = (0.0, 255.0) if is_eight_bit else self._intensity_range(image)

        def scale(array: np.ndarray) -> torch.Tensor:
            values = torch.from_numpy(array.astype(np.float32))
            return values.div_(high) if is_eight_bit else values.sub_(low).div_(high - low).clamp_(0, 1)

        return scale

    def normalize(self, values: torch.Tensor) -> torch.Tensor:
        """Subtract mean and divide by standard deviation; (1 or 3, D, H, W) to (3, D, H, W)."""
        mean, std = (torch.tensor(x).reshape(3, 1, 1, 1) for x in (self.image_mean, self.image_std))
        return (values - mean).div_(std)

    def denormalize(self, values: torch.Tensor) -> torch.Tensor:
        """Invert :meth:`normalize`."""
        mean, std = (torch.tensor(x).reshape(3, 1, 1, 1) for x in (self.image_mean, self.image_std))
        return values * std + mean

    def _intensity_range(self, image: MedicalImage) -> tuple[float, float]:
        array = image.array
        lowest, highest = float(array.min()), float(array.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            count = int((~np.isfinite(array)).sum())
            raise VividMedError(
                f"{image.source}: contains {count} NaN or infinite values; repair or remove the image"
            )
        if lowest == highest:
            raise VividMedError(
                f"{image.source}: every voxel has the value {lowest:g}; give an image with content"
            )
        sample = array.reshape(-1)[:: -(-array.size // _QUANTILE_SAMPLE)]
        sample = sample[sample > lowest]
        if self.window is not None and image.modality in (None, "CT") and self._fits_window(image, sample):
            level, width = self.window
            return level - width / 2, level + width / 2
        low, high = np.percentile(sample, self.percentiles) if sample.size else (lowest, highest)
        return (float(low), float(high)) if low < high else (lowest, highest)

    def _fits_window(self, image: MedicalImage, sample: np.ndarray) -> bool:
        """Whether values can be HU: those of CT with an offset of 1024 or 8192 have no fat or air, but much bone.

        Raises:
            VividMedError: they cannot, although the image is a CT.
        """
        low, high = np.percentile(sample, (0.1, 95)) if sample.size else (-1000, 0)
        if low < _HOUNSFIELD_FAT or high <= _HOUNSFIELD_BONE:
            return True
        found = (
            f"{image.source}: values from {low:.0f} to {high:.0f} are not HU, in which the window is given"
        )
        if image.modality == "CT":
            raise VividMedError(
                f"{found}; subtract the offset (often 1024 or 8192), correct the rescale intercept, or use window=None"
            )
        logger.warning_once(f"{found}; percentiles are used instead")
        return False

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
            "patch_size": (depth & (depth - 1) or max(self.patch_size) > _LARGEST_PATCH)
            and f"needs a power of two along z, and at most {_LARGEST_PATCH}",
            "pool_size": max(self.pool_size) > _LARGEST_PATCH and f"must be at most {_LARGEST_PATCH}",
            "max_image_tokens": not self.max_slice_tokens <= self.max_image_tokens <= _LARGEST_BUDGET
            and f"must be at least max_slice_tokens and at most {_LARGEST_BUDGET}",
            "percentiles": not 0 <= self.percentiles[0] < self.percentiles[1] <= 100
            and "must rise within 0 to 100",
            "window": self.window is not None and not self.window[1] > 0 and "needs a width above 0",
            "resampling": self.resampling not in RESAMPLINGS and f"must be one of {', '.join(RESAMPLINGS)}",
            "image_std": not min(self.image_std) > 0 and "needs values above 0",
        }
        for name, problem in problems.items():
            if problem:
                raise VividMedError(f"image processor: {name}={getattr(self, name)} {problem}")


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    if (
        not isinstance(value, Sequence | np.ndarray)
        or isinstance(value, str | bytes)
        or len(value) != count
        or not all(isinstance(n, Real) and not isinstance(n, bool) and math.isfinite(n) for n in value)
    ):
        raise VividMedError(f"image processor: {name}={value!r} needs {count} numbers")
    return tuple(value)


def _whole(name: str, value: Any) -> int:
    (number,) = _numbers(name, [value], 1)
    if int(number) != number or number < 1:
        raise VividMedError(f"image processor: {name}={value} must be a whole number of at least 1")
    return int(number)


def _triple(name: str, value: Any) -> Triple:
    numbers = _numbers(name, value, 3)
    if any(int(n) != n or n < 1 for n in numbers):
        raise VividMedError(
            f"image processor: {name}={value} needs three whole numbers above 0, in the order (z, y, x)"
        )
    return triple(int(n) for n in numbers)
