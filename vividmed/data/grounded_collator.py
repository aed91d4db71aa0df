"""Rows to training batches with labels for the phrases."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from vividmed.data.collator import VividMedCollator
from vividmed.data.grounded_examples import GroundedExample
from vividmed.processing.special_tokens import PHRASE_END


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
