"""Turns rows into grounded conversations with labels, and those into batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vividmed.data.batches.augmentation import Augmentation, AugmentationSettings, equalize
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.deformation import Deformation
from vividmed.data.batches.examples import read_images
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import Conversation, PhraseTarget, build_conversation, sample_generator
from vividmed.data.schema import row_kind_of
from vividmed.models.phrases.grounding import GroundingLabels
from vividmed.processing.geometry import ResizePlan
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.special_tokens import PHRASE_END
from vividmed.triples import Triple

ConversationDrawer = Callable[[str, Mapping[str, Any], np.random.Generator], Conversation]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundedExample:
    """A row, ready for the processor, that labels its phrases once the processor has planned the image.

    Attributes:
        images: images with flips and turns applied, in order of mention.
        conversation: conversation about the augmented images.
        row: the row; its ``masks`` and ``boxes`` lie on the grid of the image as read, under the names that they have
            in the augmented image.
        size: (D, H, W) of the first image as read.
        augmentation: augmentation of the images.
        equalized: whether the histogram is equalised.
    """

    images: list[MedicalImage]
    conversation: Conversation
    row: Mapping[str, Any]
    size: Triple
    augmentation: Augmentation = field(default_factory=Augmentation)
    equalized: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """Messages of the conversation."""
        return self.conversation.messages

    @property
    def grounding(self) -> bool:
        """Whether the answers are to be grounded."""
        return self.conversation.grounding

    @property
    def changes_intensity(self) -> bool:
        """Whether :meth:`intensity` changes anything."""
        return self.equalized or (self.augmentation.scale, self.augmentation.shift) != (1.0, 0.0)

    def intensity(self, values: torch.Tensor) -> torch.Tensor:
        """Change the intensities of an image (3, D, H, W) in [0, 1]."""
        return self.augmentation.intensity(equalize(values) if self.equalized else values)

    def labels(self, plan: ResizePlan, num_phrases: int) -> GroundingLabels:
        """Labels of the first phrases on the model's grid.

        A phrase whose targets have both masks and boxes is labelled with both.

        Args:
            plan: how the first image is resized.
            num_phrases: number of phrases that truncation has left.

        Raises:
            VividMedError: a mask or box does not lie on the grid of the image.
        """
        phrases = self.conversation.phrases[:num_phrases]
        masked = [
            phrase if phrase.label_type == "mask" else replace(phrase, label_type=None) for phrase in phrases
        ]
        boxed = [self._as_boxes(phrase) for phrase in phrases]
        return self._labels(masked, plan) | self._labels(boxed, plan)

    def _labels(self, phrases: Sequence[PhraseTarget], plan: ResizePlan) -> GroundingLabels:
        return grounding_labels(self.row, phrases, size=self.size, plan=plan, augmentation=self.augmentation)

    def _as_boxes(self, phrase: PhraseTarget) -> PhraseTarget:
        """The phrase with its boxes as a label, if the row has them."""
        located = {entry["target"] for entry in self.row["boxes"]}
        has_boxes = set(phrase.targets) <= located if phrase.present else bool(located)
        return replace(phrase, label_type="box" if phrase.labelled and has_boxes else None)


@dataclass(frozen=True, kw_only=True)
class GroundingTransform:
    """Turns rows into examples; all randomness is a function of (seed, epoch, index).

    Rows without an epoch are for evaluation: they are not augmented, and always give the same conversation.

    Attributes:
        seed: seed of all draws.
        draw_conversation: function of (kind of row, row, generator) that gives the conversation; None for the published
            settings.
        augmentation: augmentation of localization rows; None for none. Images of reports are neither flipped nor turned,
            as published: the text between the phrases names places too and would have to change.
        equalize: probability of equalising the histogram of a grounded report's image.
    """

    seed: int
    draw_conversation: ConversationDrawer | None = None
    augmentation: AugmentationSettings | None = None
    equalize: float = 0.0

    def __call__(self, row: Mapping[str, Any]) -> GroundedExample:
        """Read a row with ``index``, and ``epoch`` in training.

        Raises:
            VividMedError: there is no image, it cannot be read, or no conversation can be drawn.
        """
        row_kind = row_kind_of(row)
        epoch = row.get("epoch")
        generator = sample_generator(seed=self.seed, epoch=epoch or 0, index=row.get("index", 0))
        images = read_images(row)
        size = images[0].size
        augmentation, equalized = Augmentation(), False
        if epoch is not None and row_kind == "localization" and self.augmentation is not None:
            names = [*row["targets"], *row["absent"]]
            augmentation = Augmentation.draw(
                images[0], names, generator=generator, settings=self.augmentation
            )
            images = [augmentation.image(image) for image in images]
            row = augmentation.row(row)
        if epoch is not None and row_kind == "grounded_report":
            equalized = bool(generator.random() < self.equalize)
        draw_conversation = self.draw_conversation or _published_conversation
        return GroundedExample(
            images=images,
            conversation=draw_conversation(row_kind, row, generator),
            row=row,
            size=size,
            augmentation=augmentation,
            equalized=equalized,
        )


def _published_conversation(
    row_kind: str, row: Mapping[str, Any], generator: np.random.Generator
) -> Conversation:
    return build_conversation(row_kind, row, generator=generator)


class GroundedCollator(VividMedCollator):
    """A :class:`VividMedCollator` for rows of any kind, whose batches also contain what the segmenters need.

    In addition to its parent's, the batch has ``grounding_values`` (a list like ``pixel_values``, in [0, 1]),
    ``grounding_labels`` (one per sample) and ``target_names`` (per sample, what its labelled masks show). Phrases that
    truncation has cut off lose their labels; the others keep them.

    Args:
        processor: a ``VividMedProcessor``.
        transform: turns a row into a :class:`GroundedExample`.
        **options: arguments of the parent.
    """

    def __init__(
        self, processor: Any, *, transform: Callable[[Mapping[str, Any]], GroundedExample], **options: Any
    ):
        super().__init__(processor, transform=transform, **options)

    def encode(self, example: GroundedExample, generator: np.random.Generator | None) -> dict[str, Any]:
        """Tensors of one example."""
        prepared = self.processor(
            images=[example.images],
            conversations=[example.messages],
            grounding=example.grounding,
            max_length=self.max_length,
            truncation=self.truncation,
            padding_side="right",
            generator=generator,
        )
        phrase_end = self.processor.tokenizer.convert_tokens_to_ids(PHRASE_END)
        kept = int((prepared["input_ids"] == phrase_end).sum())
        plans, values = prepared["geometry"], prepared.get("grounding_values")
        if values is None:
            # Images of texts without grounding are not segmented; expanded zeros take no memory.
            values = [torch.zeros(()).expand_as(image) for image in prepared["pixel_values"]]
        elif example.changes_intensity:
            values = [example.intensity(image) for image in values]
            prepared["pixel_values"] = [self.processor.image_processor.normalize(image) for image in values]
        labels = example.labels(plans[0], kept) if plans else {}
        if generator is not None and self.deformation:
            labels = self._deform(prepared, values, labels, generator)
        phrases = example.conversation.phrases
        names = [
            " and ".join(phrases[i].targets) for i in labels.get("mask_phrases", torch.empty(0)).tolist()
        ]
        return {**prepared, "grounding_values": values, "grounding_labels": labels, "target_names": names}

    def _deform(
        self,
        prepared: dict[str, Any],
        values: list[torch.Tensor],
        labels: GroundingLabels,
        generator: np.random.Generator,
    ) -> GroundingLabels:
        """Deform the images in place and return the labels that move with the first of them."""
        images = self.processor.image_processor
        grounded = "grounding_values" in prepared
        for number, image in enumerate(prepared["pixel_values"]):
            deformation = Deformation.of_image(self.deformation, generator, image)
            changed = deformation.image(values[number] if grounded else images.denormalize(image))
            prepared["pixel_values"][number] = images.normalize(changed)
            if grounded:
                values[number] = changed
            if number == 0:
                labels = deformation.labels(labels)
        return labels
