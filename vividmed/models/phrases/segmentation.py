"""Both segmenters, each asked only for the phrases that need it."""

from collections.abc import Sequence

import torch

from vividmed.models.phrases.forms import (
    NOT_DRAWN,
    PhraseForm,
    phrase_numbers,
    presence_of_boxes,
    presence_of_masks,
)
from vividmed.models.phrases.grounding import GroundingOutput, PhraseBatch
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter


class PhraseSegmentation:
    """Masks and boxes of a batch of phrases, filled in by any number of calls.

    Args:
        phrases: prompts and images.
        segmenter: draws masks; None for no masks.
        instance_segmenter: finds boxes; None for no boxes.
    """

    def __init__(
        self,
        phrases: PhraseBatch,
        segmenter: Segmenter | None,
        instance_segmenter: InstanceSegmenter | None,
    ):
        self.phrases = phrases
        self.segmenter = segmenter
        self.instance_segmenter = instance_segmenter
        # Of the samples that have an image, by the number of the sample.
        self._masks: dict[int, torch.Tensor] = {}
        self._boxes: dict[int, torch.Tensor] = {}
        self._logits: dict[int, torch.Tensor] = {}
        for sample in phrases.seen:
            self._prepare(sample)

    def draw(self, numbers: Sequence[torch.Tensor]) -> None:
        """Draw masks; ``numbers`` are for each sample the (n,) phrases to draw."""
        if self.segmenter is None or not any(map(len, numbers)):
            return
        masks = self.segmenter(*self.phrases.segmenter_inputs(numbers)).masks
        for sample, drawn in zip(self.phrases.seen, masks, strict=True):
            self._masks[sample][numbers[sample]] = drawn

    def box(self, numbers: Sequence[torch.Tensor]) -> None:
        """Find boxes; ``numbers`` are for each sample the (n,) phrases to look for."""
        if self.instance_segmenter is None or not any(map(len, numbers)):
            return
        found = self.instance_segmenter(*self.phrases.segmenter_inputs(numbers))
        for sample, boxes, logits in zip(self.phrases.seen, found.boxes, found.logits, strict=True):
            self._boxes[sample][numbers[sample]] = boxes
            self._logits[sample][numbers[sample]] = logits

    def missed(
        self, forms: Sequence[Sequence[PhraseForm]], form: PhraseForm, threshold: float
    ) -> list[torch.Tensor]:
        """Phrases of a form whose first choice has a presence score below a threshold, for each sample (n,)."""
        missed = []
        for sample, of_sample in enumerate(forms):
            numbers = phrase_numbers(of_sample, (form,))
            if sample in self._masks and len(numbers):
                scores = (
                    presence_of_masks(self._masks[sample][numbers])
                    if form == "mask first"
                    else presence_of_boxes(self._logits[sample][numbers])
                )
                numbers = numbers[(scores < threshold).cpu()]
            missed.append(numbers)
        return missed

    def output(self) -> GroundingOutput:
        """What was found so far; logits of what was not asked for are ``-inf``."""
        samples = range(len(self.phrases.prompts))
        seen = set(self.phrases.seen)
        output = GroundingOutput(
            prompts=[self.phrases.prompts[sample] if sample in seen else None for sample in samples]
        )
        if self.segmenter is not None:
            output.masks = [self._masks.get(sample) for sample in samples]
        if self.instance_segmenter is not None:
            output.boxes = [self._boxes.get(sample) for sample in samples]
            output.box_logits = [self._logits.get(sample) for sample in samples]
        return output

    def _prepare(self, sample: int) -> None:
        prompts, image = self.phrases.prompts[sample], self.phrases.images[sample]
        count, device = len(prompts), prompts.device
        size = () if image is None else tuple(image.shape[1:])
        self._masks[sample] = torch.full((count, *size), NOT_DRAWN, device=device)
        queries = (
            0 if self.instance_segmenter is None else self.instance_segmenter.config.num_instance_queries
        )
        self._boxes[sample] = torch.zeros(count, queries, 6, device=device)
        self._logits[sample] = torch.full((count, queries), NOT_DRAWN, device=device)
