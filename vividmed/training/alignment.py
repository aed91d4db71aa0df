"""Training a segmenter before there are phrases: every target of the taxonomy has a learned prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vividmed.data.taxonomy import Taxonomy
from vividmed.models.base import VividMedCausalLMOutput
from vividmed.models.phrases.grounding import GroundingLabels, GroundingLosses, PhraseBatch, grounding_loss
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter


class PromptTableSegmenter(nn.Module):
    """A segmenter and a table of prompt vectors, one for each target of the taxonomy.

    The table stands in for the text encoder whose prompts the published alignment used, and is thrown away like it:
    later the projection of the language model's states makes the prompts.

    Args:
        segmenter: to train, with masks for a :class:`Segmenter` and boxes for an :class:`InstanceSegmenter`.
        losses: losses of masks and of instances.
    """

    def __init__(self, segmenter: Segmenter | InstanceSegmenter, losses: GroundingLosses | None = None):
        super().__init__()
        self.segmenter = segmenter
        names = [target.name for target in Taxonomy.load()]
        self._rows = {name: row for row, name in enumerate(names)}
        self.prompts = nn.Embedding(len(names), segmenter.config.hidden_size)
        self.losses = losses or GroundingLosses()

    @property
    def config(self) -> Any:
        """Configuration of the segmenter."""
        return self.segmenter.config

    def prompts_of(self, targets: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        """(n, hidden_size) for each image that is asked for n targets; names of the taxonomy."""
        device = self.prompts.weight.device
        rows = [torch.tensor([self._rows[name] for name in names], dtype=torch.long) for names in targets]
        return list(self.prompts(torch.cat(rows).to(device)).split([len(each) for each in rows]))

    def forward(
        self,
        images: Sequence[torch.Tensor],
        patch_sizes: torch.Tensor,
        targets: Sequence[Sequence[str]],
        grounding_labels: Sequence[GroundingLabels],
        num_samples_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> VividMedCausalLMOutput:
        """Loss of a batch.

        Args:
            images: each (3, D, H, W) in [0, 1].
            patch_sizes: (N, 3), (z, y, x).
            targets: for each image the names asked for.
            grounding_labels: for each image, of all its targets in order.
            num_samples_in_batch: number of images to average over when the batch is part of a larger one.
            **kwargs: what the Trainer passes to models that write text.
        """
        instances = isinstance(self.segmenter, InstanceSegmenter)
        loss = grounding_loss(
            PhraseBatch(
                prompts=self.prompts_of(targets),
                images=[image.to(self.prompts.weight.device) for image in images],
                patch_sizes=torch.as_tensor(patch_sizes).tolist(),
            ),
            grounding_labels,
            segmenter=None if instances else self.segmenter,
            instance_segmenter=self.segmenter if instances else None,
            losses=self.losses,
            num_samples=len(images) if num_samples_in_batch is None else num_samples_in_batch,
        )
        components = {"grounding_loss": loss.total.detach(), **loss.components}
        return VividMedCausalLMOutput(loss=loss.total, loss_components=components, mask_logits=loss.masks)
