"""Turns localization rows into images with prompted targets for one segmenter, and those into batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import torch

from vividmed.data.bad_rows import OnBadSample, Rows, prepare_rows, row_name
from vividmed.data.batches.augmentation import Augmentation, AugmentationSettings
from vividmed.data.batches.batch import Batch
from vividmed.data.batches.collator import BatchSize
from vividmed.data.batches.deformation import Deformation, DeformationSettings
from vividmed.data.batches.examples import read_images
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import PhraseTarget, sample_generator
from vividmed.data.conversations.settings import LabelType
from vividmed.data.masks import pack_mask, unpack_mask
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.models.phrases.grounding import GroundingLabels
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple


class AlignmentExample(TypedDict):
    """One image and its prompts.

    Attributes:
        values: (3, D, H, W) in [0, 1].
        patch_size: (z, y, x).
        targets: names of the taxonomy, one per prompt.
        labels: labels of the prompts, in the same order.
    """

    values: torch.Tensor
    patch_size: Triple
    targets: list[str]
    labels: GroundingLabels


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How volumes are cropped; the defaults are the published ones. Pictures are never cropped.

    Attributes:
        whole: probability of taking the whole volume.
        centred: probability of centring the crop on a target; otherwise its place is uniform.
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

    Rows without an epoch are for evaluation: they are neither cropped nor augmented, and all their targets are prompted.

    Attributes:
        image_processor: processor whose token budget an example fills.
        low_resolution: processor with a smaller budget that is used instead with probability 0.4; None for none.
        label_type: label type to train on. Targets without such a label are not prompted.
        seed: seed of all draws.
        augmentation: settings of the augmentation; None for none.
        deformation: random deformation and loss of quality of the image, with its labels; None for none.
        crops: how volumes are cropped; None to take them whole. Boxes need whole images.
        max_present: largest number of present targets per example.
        max_targets: number of targets per example, filled up with absent ones.
    """

    image_processor: VividMedImageProcessor
    low_resolution: VividMedImageProcessor | None = None
    label_type: LabelType = "mask"
    seed: int = 0
    augmentation: AugmentationSettings | None = None
    deformation: DeformationSettings | None = None
    crops: CropSettings | None = None
    max_present: int = 14
    max_targets: int = 16

    def __call__(self, row: Mapping[str, Any]) -> AlignmentExample:
        """Read a row with ``index``, and ``epoch`` in training.

        Raises:
            VividMedError: there is not exactly one image, it cannot be read, or a mask or box does not lie on its grid.
        """
        training = row.get("epoch") is not None
        generator = sample_generator(seed=self.seed, epoch=row.get("epoch") or 0, index=row.get("index", 0))
        processor = self.image_processor
        if training and self.low_resolution is not None and generator.random() < 0.4:
            processor = self.low_resolution
        images = read_images(row)
        if len(images) != 1:
            raise VividMedError(f"{len(images)} images are given; masks and boxes need exactly one")
        image = images[0]
        # Intensities are scaled over the whole image, whatever is cropped from it.
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
        values = augmentation.intensity(values)
        phrases = self._phrases(row, generator, all_targets=not training)
        labels = grounding_labels(row, phrases, size=size, plan=plan, augmentation=augmentation)
        if training and self.deformation:
            deformation = Deformation.of_image(self.deformation, generator, values)
            values, labels = deformation.image(values), deformation.labels(labels)
        return AlignmentExample(
            values=values.expand(3, -1, -1, -1),
            patch_size=plan.patch_size,
            targets=[phrase.text for phrase in phrases],
            labels=labels,
        )

    def _phrases(
        self, row: Mapping[str, Any], generator: np.random.Generator, *, all_targets: bool
    ) -> list[PhraseTarget]:
        located = {entry["target"] for entry in row["masks" if self.label_type == "mask" else "boxes"]}
        taxonomy = Taxonomy.load()
        present = [name for name in row["targets"] if name in located]
        absent = list(row["absent"])
        if not all_targets:
            present = [str(name) for name in generator.permutation(present)[: self.max_present]]
            absent = [str(name) for name in generator.permutation(absent)[: self.max_targets - len(present)]]
        return [
            PhraseTarget(
                text=taxonomy[name].name,
                targets=(name,),
                present=name in located,
                label_type=self.label_type,
            )
            for name in [*present, *absent]
        ]


def _cropped(
    image: MedicalImage,
    row: Mapping[str, Any],
    processor: VividMedImageProcessor,
    settings: CropSettings,
    generator: np.random.Generator,
) -> tuple[MedicalImage, Mapping[str, Any]]:
    """Crop a volume to what the budget shows at about its own resolution; targets outside become absent."""
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
    # An incomplete target may be in the crop although nothing of it was drawn there.
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
        transform: turns a row into an example.
        on_bad_sample: what to do with rows that cannot be read or prepared: ``"error"``, or ``"skip"`` to leave them
            out with a warning.
        spare_rows: with ``"skip"``, rows that stand in, without labels, for a batch that has no usable row left.
    """

    def __init__(
        self,
        transform: SegmentationTransform,
        *,
        on_bad_sample: OnBadSample = "error",
        spare_rows: Rows | Sequence[Mapping[str, Any]] = (),
    ):
        self.transform = transform
        self.on_bad_sample = on_bad_sample
        self.spare_rows = spare_rows

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Prepare and join rows.

        Returns:
            ``images``: list of (3, D, H, W); ``patch_sizes`` (N, 3); ``targets``: per image, the names prompted;
            ``grounding_labels``: one per image; ``target_names``: equal to ``targets``. In addition ``sample_ids``,
            ``num_samples`` (of those with labels) and ``size``.

        Raises:
            VividMedError: a row cannot be prepared and is not to be skipped, or no row and no spare row can be
                prepared. The message names the row.
        """
        prepared, is_spare = prepare_rows(
            rows, self._prepare, on_bad_sample=self.on_bad_sample, spare_rows=self.spare_rows
        )
        examples = [example for _, example in prepared]
        if is_spare:
            examples = [{**examples[0], "targets": [], "labels": {}}]
        patch_sizes = torch.tensor([example["patch_size"] for example in examples])
        patches = sum(
            math.prod(example["values"].shape[1:]) // math.prod(example["patch_size"]) for example in examples
        )
        targets = [example["targets"] for example in examples]
        return Batch(
            images=[example["values"] for example in examples],
            patch_sizes=patch_sizes,
            targets=targets,
            grounding_labels=[example["labels"] for example in examples],
            target_names=targets,
            sample_ids=[row_name(row) for row, _ in prepared],
            num_samples=0 if is_spare else sum(not row.get("repeated") for row, _ in prepared),
            size=BatchSize(
                samples=len(prepared),
                tokens=patches,
                supervised_tokens=sum(map(len, targets)),
                patches=patches,
            ),
        )

    def _prepare(self, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], AlignmentExample]:
        example = self.transform(row)
        if row.get("repeated"):
            example = {**example, "targets": [], "labels": {}}
        return row, example
