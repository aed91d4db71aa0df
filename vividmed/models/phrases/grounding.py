"""From phrases to places: the hidden state that writes ``</p>`` becomes the prompt of the segmenters.

A phrase is counted by its ``</p>``: phrase p of a sample is the p-th ``</p>`` among its tokens. It is looked for in
the first image of its sample (VividMed, section 3.1; one image in the published system). Whoever grounds, in training
or in generation, first makes a :class:`PhraseBatch`: the prompt of every phrase, and the image of every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import nn
from transformers.utils import ModelOutput

from vividmed.errors import VividMedError
from vividmed.models.segmenter.instance_loss import InstanceLoss
from vividmed.models.segmenter.losses import LossOutput, MaskLoss
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter


class GroundingLabels(TypedDict, total=False):
    """Labels of the phrases of one sample; a phrase that no entry names has no label.

    Attributes:
        mask_phrases: (n,) int64, the phrases that have a mask.
        masks: (n, D, H, W) bool on the grid of the sample's image, in the order of ``mask_phrases``.
        ignore: (n, D, H, W) bool, voxels that nobody annotated; none by default.
        box_phrases: (k,) int64, the phrases whose instances were annotated.
        box_counts: (k,) int64, how many boxes each of them has; may be 0.
        boxes: (sum of box_counts, 6) float32, centre and size (z, y, x, d, h, w) as fractions of the image.
        exhaustive: (k,) bool, false where there may be more instances than the boxes; all true by default.
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
        prompts: for each sample (P, E), the prompts of its phrases; None for a sample without an image.
        masks: for each sample (P, D, H, W) logits, None for a sample without an image; None without a segmenter.
        boxes: for each sample (P, Q, 6), centre and size (z, y, x, d, h, w) as fractions; None without an instance
            segmenter.
        box_logits: for each sample (P, Q); their sigmoid is the score of the box.
    """

    prompts: list[torch.Tensor | None] | None = None
    masks: list[torch.Tensor | None] | None = None
    boxes: list[torch.Tensor | None] | None = None
    box_logits: list[torch.Tensor | None] | None = None

    def of_sample(self, sample: int) -> "GroundingOutput":
        """The part of one sample, as a batch of its own."""
        return GroundingOutput(**{name: [values[sample]] for name, values in self.items()})


@dataclass(frozen=True)
class GroundingLosses:
    """How masks and instances are compared with their labels; the defaults are the published choice.

    Attributes:
        masks: loss of masks.
        instances: loss of boxes and scores.
    """

    masks: MaskLoss = field(default_factory=MaskLoss)
    instances: InstanceLoss = field(default_factory=InstanceLoss)


@dataclass
class GroundingLossOutput:
    """Loss of a batch.

    Attributes:
        total: mean over the samples.
        components: mean of each part over the samples that have it.
        masks: for each sample the detached logits (n, D, H, W) of its labelled masks; None without a segmenter.
    """

    total: torch.Tensor
    components: dict[str, torch.Tensor] = field(default_factory=dict)
    masks: list[torch.Tensor] | None = None


class GroundingProjection(nn.Sequential):
    """From the decoder's width to the segmenters': linear, ReLU, linear, in the precision of its weights."""

    def __init__(self, hidden_size: int, prompt_size: int):
        super().__init__(nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, prompt_size))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.to(next(self.parameters()).dtype))


@dataclass(frozen=True)
class SampleIndex:
    """The sample that each token of a batch belongs to; a packed row contains several samples.

    Attributes:
        samples: (B, L) int64, number of the sample in the batch, -1 at padding.
        count: number of samples.
    """

    samples: torch.Tensor
    count: int

    @classmethod
    def build(cls, input_ids: torch.Tensor, samples_in_row: torch.Tensor | None) -> "SampleIndex":
        """Number the samples of a batch.

        Args:
            input_ids: (B, L).
            samples_in_row: (B, L), as :func:`~vividmed.models.layout.number_samples` returns them; an attention mask
                is one.
        """
        if samples_in_row is None:
            rows = torch.arange(len(input_ids), device=input_ids.device)[:, None]
            return cls(rows.expand_as(input_ids), len(input_ids))
        samples_in_row = samples_in_row.long()
        per_row = samples_in_row.amax(dim=1)
        first = per_row.cumsum(0) - per_row
        samples = torch.where(samples_in_row > 0, first[:, None] + samples_in_row - 1, -1)
        return cls(samples, int(per_row.sum()))

    def counts(self, selected: torch.Tensor) -> list[int]:
        """Number of selected tokens of each sample; ``selected`` is (B, L) bool."""
        return self.samples[selected].bincount(minlength=self.count).tolist()

    def count_images(self, token_type_ids: torch.Tensor | None) -> int:
        """Number of images that the text of all samples has places for."""
        return 0 if token_type_ids is None else int(self._images_of_samples(token_type_ids).sum())

    def first_images(self, token_type_ids: torch.Tensor | None) -> list[int | None]:
        """Index, in the batch's list of images, of each sample's first image; None for samples without one."""
        if token_type_ids is None:
            return [None] * self.count
        images = self._images_of_samples(token_type_ids)
        starts = (images.cumsum(0) - images).tolist()
        return [start if count else None for start, count in zip(starts, images.tolist(), strict=True)]

    def _images_of_samples(self, token_type_ids: torch.Tensor) -> torch.Tensor:
        """(samples,) number of images of each sample."""
        real = self.samples >= 0
        images = torch.zeros(self.count, dtype=torch.long, device=self.samples.device)
        return images.scatter_reduce(0, self.samples[real], token_type_ids[real].long(), "amax")


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


@dataclass(frozen=True)
class PhraseBatch:
    """The phrases of a batch and where they are to be found; samples are those of :class:`SampleIndex`.

    Attributes:
        prompts: for each sample (P, E), the prompts of its phrases.
        images: for each sample (3, D, H, W) in [0, 1], or None for a sample without an image.
        patch_sizes: for each sample (z, y, x), or None.
    """

    prompts: list[torch.Tensor]
    images: list[torch.Tensor | None]
    patch_sizes: list[Sequence[int] | None]

    @classmethod
    def build(
        cls,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor,
        samples: SampleIndex,
        *,
        token_type_ids: torch.Tensor | None,
        images: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | Sequence[Sequence[int]] | None,
        projection: nn.Module,
        phrase_end_token_id: int,
    ) -> "PhraseBatch":
        """Turn the decoder's states into prompts.

        Args:
            hidden_states: (B, L, C) after the final norm.
            input_ids: (B, L).
            samples: which sample each token belongs to.
            token_type_ids: (B, L), as the model takes them.
            images: images of the batch, each (3, D, H, W) in [0, 1], in the order of ``pixel_values``.
            patch_sizes: (images, 3).
            projection: from states (P, C) to prompts (P, E).
            phrase_end_token_id: id of ``</p>``.

        Raises:
            VividMedError: there is not one image and one patch size for each image of the text.
        """
        return cls.from_states(
            phrase_states(hidden_states, input_ids, samples, phrase_end_token_id),
            samples,
            token_type_ids=token_type_ids,
            images=images,
            patch_sizes=patch_sizes,
            projection=projection,
        )

    @classmethod
    def from_states(
        cls,
        states: Sequence[torch.Tensor],
        samples: SampleIndex,
        *,
        token_type_ids: torch.Tensor | None,
        images: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | Sequence[Sequence[int]] | None,
        projection: nn.Module,
    ) -> "PhraseBatch":
        """Turn the states of phrases, for each sample (P, C), into prompts; arguments as in :meth:`build`."""
        first = samples.first_images(token_type_ids)
        images = list(images or [])
        sizes = torch.as_tensor(() if patch_sizes is None else patch_sizes).tolist()
        mentioned = samples.count_images(token_type_ids)
        if not len(images) == len(sizes) == mentioned:
            raise VividMedError(
                f"the text has {mentioned} images but there are {len(images)} grounding_values and {len(sizes)} "
                "patch_sizes: call the processor with grounding=True"
            )
        with torch.autocast(samples.samples.device.type, enabled=False):
            prompts = [projection(state) for state in states]
        return cls(
            prompts=prompts,
            images=[None if image is None else images[image] for image in first],
            patch_sizes=[None if image is None else sizes[image] for image in first],
        )

    @property
    def seen(self) -> list[int]:
        """Numbers of the samples that have an image."""
        return [sample for sample, image in enumerate(self.images) if image is not None]

    def segmenter_inputs(
        self, phrases: Sequence[torch.Tensor | None] | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[Sequence[int]]]:
        """Images, prompts and patch sizes of the samples that have an image, as a segmenter takes them.

        Args:
            phrases: for each sample the (n,) numbers of the phrases to ask for, None for none of them; by default
                all phrases are asked for.
        """
        images, prompts, sizes = [], [], []
        for sample, (image, size) in enumerate(zip(self.images, self.patch_sizes, strict=True)):
            if image is None or size is None:
                continue
            prompt = self.prompts[sample]
            if phrases is not None:
                chosen = phrases[sample]
                prompt = prompt[:0] if chosen is None else prompt[chosen.to(prompt.device)]
            images.append(image)
            prompts.append(prompt)
            sizes.append(size)
        return images, prompts, sizes


def grounding_loss(
    phrases: PhraseBatch,
    labels: Sequence[GroundingLabels],
    *,
    segmenter: Segmenter | None,
    instance_segmenter: InstanceSegmenter | None,
    losses: GroundingLosses,
    num_samples: int | torch.Tensor,
) -> GroundingLossOutput:
    """Loss of the labelled phrases of a batch.

    The segmenter draws the phrases that have a mask, the instance segmenter finds those that have boxes, and each
    sample's result is compared with its labels. The sum over samples, in which those without labels count as 0, is
    divided by ``num_samples``. Whatever the batch contains, every parameter stays in the graph.

    Args:
        phrases: prompts and images.
        labels: for each sample.
        segmenter: draws the masks; needed where masks are labelled.
        instance_segmenter: finds the boxes; needed where boxes are labelled.
        losses: of masks and of instances.
        num_samples: number of samples to average over.

    Raises:
        VividMedError: a label names a phrase that its sample lacks, does not fit its image, or needs a segmenter
            that is not there.
    """
    if len(labels) != len(phrases.prompts):
        raise VividMedError(
            f"the batch has {len(phrases.prompts)} samples but {len(labels)} grounding_labels: give one per sample"
        )
    for sample, label in enumerate(labels):
        check_labels(sample, label, len(phrases.prompts[sample]), phrases.images[sample])
    # Prompts of samples without an image lead nowhere, yet their projection must stay in the graph.
    terms = [
        prompt.float().sum() * 0
        for prompt, image in zip(phrases.prompts, phrases.images, strict=True)
        if image is None
    ]
    parts: list[LossOutput] = []
    masks = None
    if segmenter is not None:
        drawn, anchor = _mask_losses(phrases, labels, segmenter, losses.masks, parts)
        terms.append(anchor)
        masks = [drawn.get(sample, anchor.new_zeros(0, 0, 0, 0)) for sample in range(len(labels))]
    elif any(len(label.get("mask_phrases", ())) for label in labels):
        raise VividMedError("the batch has mask_phrases but the model has no segmenter: see segmenter_config")
    if instance_segmenter is not None:
        terms.append(_instance_losses(phrases, labels, instance_segmenter, losses.instances, parts))
    elif any(len(label.get("box_phrases", ())) for label in labels):
        raise VividMedError(
            "the batch has box_phrases but the model has no instance_segmenter: see instance_segmenter_config"
        )
    total = torch.stack([*terms, *(part.total for part in parts)]).sum() / num_samples
    return GroundingLossOutput(total, _means([part.components for part in parts]), masks)


def _mask_losses(
    phrases: PhraseBatch,
    labels: Sequence[GroundingLabels],
    segmenter: Segmenter,
    loss: MaskLoss,
    parts: list[LossOutput],
) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Append the losses of masks to ``parts``; returns the detached masks by sample and the graph's anchor."""
    output = segmenter(*phrases.segmenter_inputs([label.get("mask_phrases") for label in labels]))
    drawn = dict(zip(phrases.seen, output.masks, strict=True))
    for sample, masks in drawn.items():
        if len(masks):
            label, ignore = labels[sample], labels[sample].get("ignore")
            ignore = None if ignore is None else ignore.to(masks.device)
            parts.append(loss(masks, label["masks"].to(masks.device), ignore=ignore))
    return {sample: masks.detach() for sample, masks in drawn.items()}, output.graph_anchor.float()


def _instance_losses(
    phrases: PhraseBatch,
    labels: Sequence[GroundingLabels],
    segmenter: InstanceSegmenter,
    loss: InstanceLoss,
    parts: list[LossOutput],
) -> torch.Tensor:
    """Append the losses of instances to ``parts``; returns the graph's anchor."""
    output = segmenter(*phrases.segmenter_inputs([label.get("box_phrases") for label in labels]))
    for sample, boxes, logits in zip(phrases.seen, output.boxes, output.logits, strict=True):
        if len(boxes):
            label = labels[sample]
            targets = label["boxes"].split(label["box_counts"].tolist())
            parts.append(loss(boxes, logits, targets, exhaustive=label.get("exhaustive")))
    return output.graph_anchor.float()


def _means(components: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each component over those that have it."""
    names = sorted({name for component in components for name in component})
    return {
        name: torch.stack([component[name] for component in components if name in component]).mean().detach()
        for name in names
    }


def check_labels(sample: int, labels: GroundingLabels, phrases: int, image: torch.Tensor | None) -> None:
    """Raise a VividMedError where the labels of a sample do not fit its phrases or its image."""
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
