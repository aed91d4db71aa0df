"""From phrases to places: the hidden state that writes ``</p>`` becomes the prompt of the segmenters.

A phrase is counted by its ``</p>``: phrase p of a sample is the p-th ``</p>`` among its tokens. It is sought in the
first image of the sample (VividMed, section 3.1; one image in the published system).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import nn
from transformers.utils import ModelOutput

from vividmed.errors import VividMedError
from vividmed.models.segmenter.losses import InstanceLoss, LossOutput, MaskLoss
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter


class GroundingLabels(TypedDict, total=False):
    """What is known about the phrases of one sample; a phrase that no entry names has no label.

    Attributes:
        mask_phrases: (n,) int64, the phrases that have a mask.
        masks: (n, D, H, W) bool on the grid of the sample's image, in the order of ``mask_phrases``.
        ignore: (n, D, H, W) bool, voxels nobody annotated; none when absent.
        box_phrases: (k,) int64, the phrases whose instances were looked for.
        box_counts: (k,) int64, how many boxes each of them has; may be 0.
        boxes: (sum of box_counts, 6) float32, centre and size (z, y, x, d, h, w) as fractions of the image.
        exhaustive: (k,) bool, false where there may be more instances than the boxes; all true when absent.
    """

    mask_phrases: torch.Tensor
    masks: torch.Tensor
    ignore: torch.Tensor
    box_phrases: torch.Tensor
    box_counts: torch.Tensor
    boxes: torch.Tensor
    exhaustive: torch.Tensor


@dataclass
class GroundingOutput(ModelOutput):
    """Where the phrases of each sample are, on the grid of its image.

    Attributes:
        prompts: for each sample (P, E), what the segmenters were asked; None for a sample without an image.
        masks: for each sample (P, D, H, W) logits, None for a sample without an image; None without a segmenter.
        boxes: for each sample (P, Q, 6), centre and size (z, y, x, d, h, w) as fractions; None without an instance
            segmenter.
        box_logits: for each sample (P, Q); their sigmoid is the score of the box.
    """

    prompts: list[torch.Tensor | None] | None = None
    masks: list[torch.Tensor | None] | None = None
    boxes: list[torch.Tensor | None] | None = None
    box_logits: list[torch.Tensor | None] | None = None


@dataclass
class GroundingLossOutput:
    """Loss of a batch: ``total`` is the mean over its samples, ``components`` the means over those that have them."""

    total: torch.Tensor
    components: dict[str, torch.Tensor] = field(default_factory=dict)


class GroundingProjection(nn.Sequential):
    """From the decoder's width to the segmenters': linear, ReLU, linear."""

    def __init__(self, hidden_size: int, prompt_size: int):
        super().__init__(nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, prompt_size))


@dataclass(frozen=True)
class SampleIndex:
    """Which sample each token of a batch belongs to; a packed row holds several samples.

    Attributes:
        samples: (B, L) int64, number of the sample in the batch, -1 at padding.
        count: number of samples.
    """

    samples: torch.Tensor
    count: int

    @classmethod
    def build(cls, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> "SampleIndex":
        """Number the samples of a batch; ``attention_mask`` (B, L) as the model takes it."""
        if attention_mask is None:
            rows = torch.arange(len(input_ids), device=input_ids.device)[:, None]
            return cls(rows.expand_as(input_ids), len(input_ids))
        per_row = attention_mask.amax(dim=1)
        first = per_row.cumsum(0) - per_row
        samples = torch.where(attention_mask > 0, first[:, None] + attention_mask - 1, -1)
        return cls(samples, int(per_row.sum()))

    def counts(self, selected: torch.Tensor) -> list[int]:
        """How many of the selected (B, L) tokens each sample has."""
        return self.samples[selected].bincount(minlength=self.count).tolist()

    def first_images(self, token_type_ids: torch.Tensor | None) -> list[int | None]:
        """Index, in the batch's list of images, of each sample's first image; None for samples without one."""
        if token_type_ids is None:
            return [None] * self.count
        real = self.samples >= 0
        images = torch.zeros(self.count, dtype=torch.long, device=self.samples.device)
        images = images.scatter_reduce(0, self.samples[real], token_type_ids[real], "amax")
        starts = (images.cumsum(0) - images).tolist()
        return [start if count else None for start, count in zip(starts, images.tolist(), strict=True)]


def phrase_states(
    hidden_states: torch.Tensor, input_ids: torch.Tensor, samples: SampleIndex, phrase_end_token_id: int
) -> list[torch.Tensor]:
    """The states that predict ``</p>``, one step before it (the published shift), in float32.

    Args:
        hidden_states: (B, L, C) after the final norm.
        input_ids: (B, L).
        samples: of the batch.
        phrase_end_token_id: id of ``</p>``.

    Returns:
        For each sample (P, C).
    """
    ends = (input_ids == phrase_end_token_id) & (samples.samples >= 0)
    ends[:, 0] = False
    states = hidden_states[ends.roll(-1, dims=1)].float()
    return list(states.split(samples.counts(ends)))


def grounding_loss(
    prompts: Sequence[torch.Tensor],
    images: Sequence[torch.Tensor | None],
    patch_sizes: Sequence[Sequence[int] | None],
    labels: Sequence[GroundingLabels],
    *,
    segmenter: Segmenter | None,
    instance_segmenter: InstanceSegmenter | None,
    mask_loss: MaskLoss,
    instance_loss: InstanceLoss,
    num_samples: int | torch.Tensor,
) -> GroundingLossOutput:
    """Loss of the labelled phrases of a batch.

    Args:
        prompts: for each sample (P, E).
        images: for each sample (3, D, H, W) in [0, 1], or None.
        patch_sizes: for each sample (z, y, x), or None.
        labels: for each sample.
        segmenter: draws the masks; needed where masks are labelled.
        instance_segmenter: finds the boxes; needed where boxes are labelled.
        mask_loss: of masks.
        instance_loss: of boxes and scores.
        num_samples: what to divide the sum over samples by; unlabelled samples count as 0.

    Raises:
        VividMedError: when a label names a phrase that its sample lacks, or does not fit its image.
    """
    for sample, label in enumerate(labels):
        _check_labels(sample, label, len(prompts[sample]), images[sample])
    seen = [sample for sample, image in enumerate(images) if image is not None]
    inputs = [images[sample] for sample in seen], [patch_sizes[sample] for sample in seen]
    # Prompts of samples without an image lead nowhere, yet their projection must stay in the graph.
    anchors = [prompt.sum() * 0 for prompt, image in zip(prompts, images, strict=True) if image is None]
    losses: list[LossOutput] = []

    masked = [_chosen(prompts[sample], labels[sample].get("mask_phrases")) for sample in seen]
    if segmenter is not None:
        drawn = segmenter(inputs[0], masked, inputs[1])
        anchors.append(drawn.graph_anchor.float())
        for sample, masks in zip(seen, drawn.masks, strict=True):
            if len(masks):
                label, ignore = labels[sample], labels[sample].get("ignore")
                ignore = None if ignore is None else ignore.to(masks.device)
                losses.append(mask_loss(masks, label["masks"].to(masks.device), ignore=ignore))
    elif any(map(len, masked)):
        raise VividMedError("the batch has mask_phrases but the model has no segmenter: see segmenter_config")

    boxed = [_chosen(prompts[sample], labels[sample].get("box_phrases")) for sample in seen]
    if instance_segmenter is not None:
        found = instance_segmenter(inputs[0], boxed, inputs[1])
        anchors.append(found.graph_anchor.float())
        for sample, boxes, logits in zip(seen, found.boxes, found.logits, strict=True):
            if len(boxes):
                label = labels[sample]
                targets = label["boxes"].split(label["box_counts"].tolist())
                losses.append(instance_loss(boxes, logits, targets, exhaustive=label.get("exhaustive")))
    elif any(map(len, boxed)):
        raise VividMedError(
            "the batch has box_phrases but the model has no instance_segmenter: see segmenter_config"
        )

    total = torch.stack([*anchors, *(loss.total for loss in losses)]).sum() / num_samples
    return GroundingLossOutput(total, _means([loss.components for loss in losses]))


def _chosen(prompts: torch.Tensor, phrases: torch.Tensor | None) -> torch.Tensor:
    """The prompts (n, E) of the labelled phrases among (P, E)."""
    return prompts[:0] if phrases is None else prompts[phrases.to(prompts.device)]


def _means(components: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each component over those that have it."""
    names = sorted({name for component in components for name in component})
    return {
        name: torch.stack([component[name] for component in components if name in component]).mean().detach()
        for name in names
    }


def _check_labels(sample: int, labels: GroundingLabels, phrases: int, image: torch.Tensor | None) -> None:
    for key, numbers in (
        ("mask_phrases", labels.get("mask_phrases")),
        ("box_phrases", labels.get("box_phrases")),
    ):
        if numbers is None or not len(numbers):
            continue
        if image is None:
            raise VividMedError(f"sample {sample} has {key} but no image to find them in")
        if int(numbers.max()) >= phrases or int(numbers.min()) < 0:
            raise VividMedError(
                f"sample {sample}: {key} name phrase {int(numbers.max())} but its text has {phrases} phrases: "
                "drop the labels of phrases that truncation has cut"
            )
    masks, boxes = labels.get("masks"), labels.get("boxes")
    if (
        masks is not None
        and image is not None
        and tuple(masks.shape) != (len(labels["mask_phrases"]), *image.shape[1:])
    ):
        raise VividMedError(
            f"sample {sample}: masks have shape {tuple(masks.shape)} but there are {len(labels['mask_phrases'])} "
            f"mask phrases on an image of size {tuple(image.shape[1:])}"
        )
    if boxes is not None and (boxes.ndim != 2 or len(boxes) != int(labels["box_counts"].sum())):
        raise VividMedError(
            f"sample {sample}: boxes have shape {tuple(boxes.shape)} but box_counts sum to "
            f"{int(labels['box_counts'].sum())}"
        )
