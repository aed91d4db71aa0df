"""Images and targets as training examples of one segmenter, and batches of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

import numpy as np
import torch

from vividmed.data.batches.augmentation import Augmentation, AugmentationSettings
from vividmed.data.batches.collator import BatchSize
from vividmed.data.batches.examples import read_images
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import PhraseTarget, sample_generator
from vividmed.data.masks import pack_mask, unpack_mask
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.models.grounding import GroundingLabels
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple


class AlignmentExample(TypedDict):
    """One image and what is asked of it.

    Attributes:
        values: (3, D, H, W) in [0, 1].
        patch_size: (z, y, x).
        targets: names of the taxonomy, the n prompts.
        labels: of the prompts, in the same order.
    """

    values: torch.Tensor
    patch_size: Triple
    targets: list[str]
    labels: GroundingLabels


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How volumes are cut; the defaults are the published ones. Pictures are always taken whole.

    Attributes:
        whole: probability of taking the whole volume.
        centred: probability of centring the crop on a target; elsewhere its place is uniform.
        in_plane: probability of another scale in the plane, drawn from 0.8 to 1.4.
        slices: probability of another scale along depth, drawn from 0.9 to 1.2.
    """

    whole: float = 0.2
    centred: float = 0.5
    in_plane: float = 0.2
    slices: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SegmentationTransform:
    """Turns localization rows into examples; all randomness is a function of (seed, epoch, index).

    Rows without an epoch are for evaluation: whole, not augmented, asked for all their targets.

    Attributes:
        image_processor: whose token budget an example fills.
        low_resolution: a processor of a smaller budget that is taken instead with probability 0.4, if given.
        form: the labels to take. Targets that lack this form are not asked for.
        seed: of all draws.
        augmentation: None for none.
        crops: of volumes; None to take them whole. Boxes need whole images.
        max_present: present targets of an example.
        max_targets: targets of an example, filled up with absent ones.
    """

    image_processor: VividMedImageProcessor
    low_resolution: VividMedImageProcessor | None = None
    form: Literal["mask", "box"] = "mask"
    seed: int = 0
    augmentation: AugmentationSettings | None = None
    crops: CropSettings | None = None
    max_present: int = 14
    max_targets: int = 16

    def __call__(self, row: Mapping[str, Any]) -> AlignmentExample:
        """Read a row with ``index``, and ``epoch`` in training.

        Raises:
            VividMedError: the image cannot be read, or a mask or box does not lie on its grid.
        """
        training = row.get("epoch") is not None
        generator = sample_generator(seed=self.seed, epoch=row.get("epoch") or 0, index=row.get("index", 0))
        processor = self.image_processor
        if training and self.low_resolution is not None and generator.random() < 0.4:
            processor = self.low_resolution
        (image,) = read_images(row)
        # Intensities are those of the whole image, whatever is cut out of it.
        image = replace(image, array=processor.scale_intensity(image).numpy())
        if training and self.crops is not None and image.size[0] > 1:
            image, row = _cropped(image, row, processor, self.crops, generator)
        size, augmentation = image.size, Augmentation()
        if training and self.augmentation is not None:
            names = [*row["targets"], *row["absent"]]
            augmentation = Augmentation.draw(image, names, generator=generator, settings=self.augmentation)
            image, row = augmentation.image(image), augmentation.row(row)
        plan = processor.plan(image.size, image.affine if image.oriented else None)
        values = plan.apply(torch.from_numpy(image.array)).clamp(0, 1)
        phrases = self._phrases(row, generator, all_targets=not training)
        return AlignmentExample(
            values=augmentation.intensity(values).expand(3, -1, -1, -1),
            patch_size=plan.patch_size,
            targets=[phrase.text for phrase in phrases],
            labels=grounding_labels(row, phrases, size=size, plan=plan, augmentation=augmentation),
        )

    def _phrases(
        self, row: Mapping[str, Any], generator: np.random.Generator, *, all_targets: bool
    ) -> list[PhraseTarget]:
        located = {entry["target"] for entry in row["masks" if self.form == "mask" else "boxes"]}
        taxonomy = Taxonomy.load()
        present = [name for name in row["targets"] if name in located]
        absent = list(row["absent"])
        if not all_targets:
            present = [str(name) for name in generator.permutation(present)[: self.max_present]]
            absent = [str(name) for name in generator.permutation(absent)[: self.max_targets - len(present)]]
        return [
            PhraseTarget(text=taxonomy[name].name, targets=(name,), present=name in located, kind=self.form)
            for name in [*present, *absent]
        ]


def _cropped(
    image: MedicalImage,
    row: Mapping[str, Any],
    processor: VividMedImageProcessor,
    settings: CropSettings,
    generator: np.random.Generator,
) -> tuple[MedicalImage, Mapping[str, Any]]:
    """Cut a volume to what the budget shows at about its own resolution; targets outside become absent."""
    extent = _extent(image, processor, settings, generator)
    if generator.random() < settings.whole or all(e >= n for e, n in zip(extent, image.size, strict=True)):
        return image, row
    centre = generator.uniform(size=3) * image.size
    if row["masks"] and generator.random() < settings.centred:
        entry = row["masks"][generator.integers(len(row["masks"]))]
        voxels = np.argwhere(unpack_mask(entry, image.size))
        if len(voxels):
            centre = voxels[generator.integers(len(voxels))]
    start = [
        int(np.clip(c - e / 2, 0, max(0, n - e))) for c, e, n in zip(centre, extent, image.size, strict=True)
    ]
    place = tuple(slice(low, low + e) for low, e in zip(start, extent, strict=True))
    affine = image.affine.copy()
    affine[:3, 3] = (affine @ [*start[::-1], 1])[:3]
    masks = [pack_mask(entry["target"], unpack_mask(entry, image.size)[place]) for entry in row["masks"]]
    masks = [mask for mask in masks if any(mask["box"])]
    inside = {mask["target"] for mask in masks}
    # Of an incomplete target there may be more in the crop than was drawn.
    known = set(row["targets"]) - set(row["incomplete"])
    outside = [name for name in row["targets"] if name in known - inside]
    targets = {"targets": [name for name in row["targets"] if name in inside]}
    cut = replace(image, array=image.array[(slice(None), *place)], affine=affine)
    return cut, {**row, **targets, "absent": [*row["absent"], *outside], "masks": masks, "boxes": []}


def _extent(
    image: MedicalImage,
    processor: VividMedImageProcessor,
    settings: CropSettings,
    generator: np.random.Generator,
) -> Sequence[int]:
    """Voxels (z, y, x) of a crop. Its slices suit patches that are about as deep as wide in mm."""
    in_plane = generator.uniform(0.8, 1.4) if generator.random() < settings.in_plane else 1.0
    slices = generator.uniform(0.9, 1.2) if generator.random() < settings.slices else 1.0
    spacing = image.spacing
    ratio = float(np.clip(spacing[0] * slices / (math.sqrt(spacing[1] * spacing[2]) * in_plane), 0.5, 3))
    exponent = round(generator.normal(math.log2(processor.patch_size[1] / ratio), 0.25))
    depth = 2 ** min(max(exponent, 0), processor.patch_size[0].bit_length() - 1)
    plane = math.sqrt(processor.max_image_tokens / processor.max_slice_tokens) * in_plane
    sizes = (
        depth * processor.pool_size[0] * processor.max_slice_tokens * slices,
        *(
            patch * pool * plane
            for patch, pool in zip(processor.patch_size[1:], processor.pool_size[1:], strict=True)
        ),
    )
    return [min(n, max(1, round(size))) for n, size in zip(image.size, sizes, strict=True)]


class AlignmentCollator:
    """Joins alignment examples.

    Args:
        read: turns a row into an example.
    """

    def __init__(self, read: SegmentationTransform):
        self.read = read

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Prepare and join rows.

        Returns:
            ``images``: list of (3, D, H, W); ``patch_sizes`` (N, 3); ``targets``: names asked for, for each image;
            ``grounding_labels``: for each image; ``target_names``: as ``targets``, of those with a mask. Besides
            ``sample_ids``, ``num_samples`` and ``size``.

        Raises:
            VividMedError: for a row that cannot be prepared, naming it.
        """
        examples = []
        for row in rows:
            try:
                example = self.read(row)
            except VividMedError as error:
                raise VividMedError(f"row {row.get('id', '?')}: {error}") from error
            if row.get("repeated"):
                example = {**example, "targets": [], "labels": {}}
            examples.append(example)
        patch_sizes = torch.tensor([example["patch_size"] for example in examples])
        patches = sum(
            math.prod(example["values"].shape[1:]) // math.prod(example["patch_size"]) for example in examples
        )
        targets = [example["targets"] for example in examples]
        return {
            "images": [example["values"] for example in examples],
            "patch_sizes": patch_sizes,
            "targets": targets,
            "grounding_labels": [example["labels"] for example in examples],
            "target_names": targets,
            "sample_ids": [str(row.get("id", "?")) for row in rows],
            "num_samples": sum(not row.get("repeated") for row in rows),
            "size": BatchSize(
                samples=len(rows),
                tokens=patches,
                supervised_tokens=sum(map(len, targets)),
                patches=patches,
            ),
        }
