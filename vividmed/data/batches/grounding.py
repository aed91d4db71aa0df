"""Grounded conversations as training examples, and batches of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vividmed.data.batches.augmentation import Augmentation, AugmentationSettings, equalize
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.examples import read_images
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import Conversation, PhraseTarget, build_conversation, sample_generator
from vividmed.models.grounding import GroundingLabels
from vividmed.processing.geometry import ResizePlan
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.special_tokens import PHRASE_END
from vividmed.triples import Triple

Converse = Callable[[str, Mapping[str, Any], np.random.Generator], Conversation]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundedExample:
    """A row, ready for the processor, that can label its phrases once the processor has planned the image.

    Attributes:
        images: augmented in space, in order of mention.
        conversation: about the images as augmented.
        row: with ``masks`` and ``boxes`` of the image as it was read, under the names of the augmented one.
        size: (D, H, W) of the first image as it was read.
        augmentation: of the image.
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
        """Turns of the conversation."""
        return self.conversation.messages

    @property
    def grounding(self) -> bool:
        """Whether the answers are to be grounded."""
        return self.conversation.grounding

    @property
    def changes_intensity(self) -> bool:
        """Whether :meth:`intensity` does anything."""
        return self.equalized or (self.augmentation.scale, self.augmentation.shift) != (1.0, 0.0)

    def intensity(self, values: torch.Tensor) -> torch.Tensor:
        """Change the intensities of an image (3, D, H, W) in [0, 1]."""
        return self.augmentation.intensity(equalize(values) if self.equalized else values)

    def labels(self, plan: ResizePlan, num_phrases: int) -> GroundingLabels:
        """Labels of the first phrases on the model's grid.

        A phrase whose targets have masks and boxes is labelled with both.

        Args:
            plan: of the first image.
            num_phrases: phrases that truncation has left.

        Raises:
            VividMedError: a mask or box does not lie on the grid of the image.
        """
        phrases = self.conversation.phrases[:num_phrases]
        masked = [phrase if phrase.kind == "mask" else replace(phrase, kind=None) for phrase in phrases]
        boxed = [self._as_boxes(phrase) for phrase in phrases]
        return self._labels(masked, plan) | self._labels(boxed, plan)

    def _labels(self, phrases: Sequence[PhraseTarget], plan: ResizePlan) -> GroundingLabels:
        return grounding_labels(self.row, phrases, size=self.size, plan=plan, augmentation=self.augmentation)

    def _as_boxes(self, phrase: PhraseTarget) -> PhraseTarget:
        """The phrase with its boxes for a label, where the row has them."""
        located = {entry["target"] for entry in self.row["boxes"]}
        has_boxes = set(phrase.targets) <= located if phrase.present else bool(located)
        return replace(phrase, kind="box" if phrase.labelled and has_boxes else None)


@dataclass(frozen=True, kw_only=True)
class GroundingTransform:
    """Turns rows into examples; all randomness is a function of (seed, epoch, index).

    Rows without an epoch are for evaluation: they are not augmented, and always give the same conversation.

    Attributes:
        seed: of all draws.
        converse: (kind of row, row, generator) -> conversation; None for the published settings.
        augmentation: of localization rows; None for none. Reports are not moved, as published: what they say of
            places beside their phrases would have to change too.
        equalize: probability of equalising the histogram of a grounded report's image.
    """

    seed: int
    converse: Converse | None = None
    augmentation: AugmentationSettings | None = None
    equalize: float = 0.0

    def __call__(self, row: Mapping[str, Any]) -> GroundedExample:
        """Read a row with ``index``, and ``epoch`` in training.

        Raises:
            VividMedError: the image cannot be read, or no conversation can be drawn.
        """
        kind = kind_of_row(row)
        epoch = row.get("epoch")
        generator = sample_generator(seed=self.seed, epoch=epoch or 0, index=row.get("index", 0))
        images = read_images(row)
        size = images[0].size
        augmentation, equalized = Augmentation(), False
        if epoch is not None and kind == "localization" and self.augmentation is not None:
            names = [*row["targets"], *row["absent"]]
            augmentation = Augmentation.draw(
                images[0], names, generator=generator, settings=self.augmentation
            )
            images = [augmentation.image(image) for image in images]
            row = augmentation.row(row)
        if epoch is not None and kind == "grounded_report":
            equalized = bool(generator.random() < self.equalize)
        converse = self.converse or _published
        return GroundedExample(
            images=images,
            conversation=converse(kind, row, generator),
            row=row,
            size=size,
            augmentation=augmentation,
            equalized=equalized,
        )


def kind_of_row(row: Mapping[str, Any]) -> str:
    """The kind that a row's columns say it is."""
    if "messages" in row:
        return "vision_language"
    return "grounded_report" if "report" in row else "localization"


def _published(kind: str, row: Mapping[str, Any], generator: np.random.Generator) -> Conversation:
    return build_conversation(kind, row, generator=generator)


class GroundedCollator(VividMedCollator):
    """A :class:`VividMedCollator` for rows of any kind, whose batches also hold what the segmenters need.

    Beside its parent's, the batch has ``grounding_values`` (a list like ``pixel_values``, in [0, 1]),
    ``grounding_labels`` (one for each sample) and ``target_names`` (for each sample, what its labelled masks show).
    Phrases that truncation has cut off lose their labels; those before stay as they are.

    Args:
        processor: a ``VividMedProcessor``.
        read: turns a row into a :class:`GroundedExample`.
        **options: of the parent.
    """

    def __init__(
        self, processor: Any, *, read: Callable[[Mapping[str, Any]], GroundedExample], **options: Any
    ):
        super().__init__(processor, read=read, **options)

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
            # Nothing is sought in images of texts without grounding; zeros of their size take no memory.
            values = [torch.zeros(()).expand_as(image) for image in prepared["pixel_values"]]
        elif example.changes_intensity:
            values = [example.intensity(image) for image in values]
            prepared["pixel_values"] = [self.processor.image_processor.normalize(image) for image in values]
        labels = example.labels(plans[0], kept) if plans else {}
        phrases = example.conversation.phrases
        names = [
            " and ".join(phrases[i].targets) for i in labels.get("mask_phrases", torch.empty(0)).tolist()
        ]
        return {**prepared, "grounding_values": values, "grounding_labels": labels, "target_names": names}
