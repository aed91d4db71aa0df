"""Turns rows into the tensors of a training batch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from vividmed.data.bad_rows import OnBadSample, Rows, prepare_rows, row_name
from vividmed.data.batches.batch import Batch
from vividmed.data.batches.deformation import Deformation, DeformationSettings
from vividmed.data.batches.examples import to_example
from vividmed.errors import VividMedError

_IGNORED = -100
_SEQUENCES = {"input_ids": 0, "token_type_ids": 0, "position_ids": 0, "attention_mask": 0, "turn_ids": 0}
_TARGETS = {"labels": _IGNORED, "label_weights": 0}


@dataclass(frozen=True)
class BatchSize:
    """Size of a batch.

    Attributes:
        samples: number of samples.
        tokens: number of tokens of the decoder, without padding.
        supervised_tokens: number of labels.
        patches: number of image patches before pooling.
    """

    samples: int
    tokens: int
    supervised_tokens: int
    patches: int


class VividMedCollator:
    """Turns vision-language rows into a batch, right-padded or packed.

    Args:
        processor: a ``VividMedProcessor``.
        max_length: longest sequence in tokens, image tokens included; also the length of a packed row.
        truncation: what to do with longer samples: ``"error"``, or ``"answer"`` to cut the end of the answer. Images
            are never cut.
        packing: put several samples into one row, first fit in order of length. ``attention_mask`` then numbers them
            and positions restart, so that each sample sees only itself and the result equals that of padding.
        independent_turns: let each turn of a conversation see the images and itself only.
        augmentation_seed: jitter the patch depth of volumes in rows that carry an epoch, as in the published
            training; the draw depends on (seed, epoch, index) only. None: no augmentation at all.
        intensity_jitter: largest change of contrast (as a share) and of brightness (in standard deviations of the
            normalised image) in the same rows.
        deformation: random deformation and loss of quality of images, with their labels, in the same rows.
        on_bad_sample: what to do with rows that cannot be read or prepared: ``"error"``, or ``"skip"`` to leave them
            out with a warning.
        spare_rows: with ``"skip"``, rows that stand in, without labels, for a batch that has no usable row left.
        transform: turns a row into what :meth:`encode` takes, ``{"images": ..., "messages": ...}``.

    Example:
        >>> collator = VividMedCollator(VividMedProcessor.tiny(), max_length=256)
        >>> batch = collator([rows[0], rows[1]])
    """

    def __init__(
        self,
        processor: Any,
        *,
        max_length: int,
        truncation: Literal["error", "answer"] = "error",
        packing: bool = False,
        independent_turns: bool = False,
        on_bad_sample: OnBadSample = "error",
        spare_rows: Rows | Sequence[Mapping[str, Any]] = (),
        augmentation_seed: int | None = None,
        intensity_jitter: float = 0.0,
        deformation: DeformationSettings | None = None,
        transform: Callable[[Mapping[str, Any]], Any] = to_example,
    ):
        self.processor = processor
        self.max_length = max_length
        self.truncation = truncation
        self.packing = packing
        self.independent_turns = independent_turns
        self.on_bad_sample = on_bad_sample
        self.spare_rows = spare_rows
        self.augmentation_seed = augmentation_seed
        self.intensity_jitter = intensity_jitter
        self.deformation = deformation or DeformationSettings()
        self.transform = transform

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Prepare and join rows.

        Returns:
            The model's inputs: ``input_ids``, ``token_type_ids``, ``position_ids``, ``attention_mask``, ``labels``
            (already shifted), ``label_weights`` and, if turns are independent, ``turn_ids``, each (B, L); ``pixel_values``, a flat list of (3, D, H, W);
            ``patch_sizes``, ``pool_sizes`` (images, 3). In addition ``geometry`` (one per image), ``sample_ids``,
            ``num_samples`` (of those with labels) and ``size`` (:class:`BatchSize`).

        Raises:
            VividMedError: a row cannot be prepared and is not to be skipped, or no row and no spare row can be
                prepared. The message names the row.
        """
        samples, is_spare = prepare_rows(
            rows, self._prepare, on_bad_sample=self.on_bad_sample, spare_rows=self.spare_rows
        )
        if is_spare:
            _remove_labels(samples[0])
        bins = self._pack(samples) if self.packing else [[sample] for sample in samples]
        return self._join(bins)

    def _prepare(self, row: Mapping[str, Any]) -> dict[str, Any]:
        generator = self._generator(row)
        prepared = self.encode(self.transform(row), generator)
        if "labels" not in prepared:
            raise VividMedError("the conversation does not end with an answer; training rows need one")
        sample = {**prepared, "id": row_name(row)}
        if generator is not None and self.intensity_jitter:
            low, high = -self.intensity_jitter, self.intensity_jitter
            sample["pixel_values"] = [
                image * (1 + generator.uniform(low, high)) + generator.uniform(low, high)
                for image in prepared["pixel_values"]
            ]
        if row.get("repeated"):
            _remove_labels(sample)
        return sample

    def encode(self, example: Any, generator: np.random.Generator | None) -> dict[str, Any]:
        """Tensors of one example as ``transform`` gives it: a batch of one sample."""
        prepared = self.processor(
            images=[example["images"]],
            conversations=[example["messages"]],
            max_length=self.max_length,
            truncation=self.truncation,
            independent_turns=self.independent_turns,
            padding_side="right",
            generator=generator,
        )
        if generator is not None and self.deformation:
            images = self.processor.image_processor
            prepared["pixel_values"] = [
                images.normalize(
                    Deformation.of_image(self.deformation, generator, image).image(images.denormalize(image))
                )
                for image in prepared["pixel_values"]
            ]
        return prepared

    def _generator(self, row: Mapping[str, Any]) -> np.random.Generator | None:
        if self.augmentation_seed is None or row.get("epoch") is None:
            return None
        return np.random.default_rng((self.augmentation_seed, row["epoch"], row["index"]))

    def _pack(self, samples: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Pack samples into rows, first fit, longest first; samples of equal length keep their order."""
        bins: list[list[dict[str, Any]]] = []
        room: list[int] = []
        for sample in sorted(samples, key=_length, reverse=True):
            place = next((i for i, free in enumerate(room) if _length(sample) <= free), None)
            if place is None:
                place = len(bins)
                bins.append([])
                room.append(self.max_length)
            bins[place].append(sample)
            room[place] -= _length(sample)
        return bins

    def _join(self, bins: list[list[dict[str, Any]]]) -> Batch:
        samples = [sample for row in bins for sample in row]
        for row in bins:
            for number, sample in enumerate(row, start=1):
                sample["attention_mask"] = sample["attention_mask"] * number
        length = max(sum(map(_length, row)) for row in bins)
        batch = Batch()
        for name, filler in (_SEQUENCES | _TARGETS).items():
            if name not in samples[0]:
                continue
            joined = [torch.cat([sample[name][0] for sample in row]) for row in bins]
            batch[name] = torch.stack([F.pad(row, (0, length - len(row)), value=filler) for row in joined])
        batch["pixel_values"] = [image for sample in samples for image in sample["pixel_values"]]
        for name in ("patch_sizes", "pool_sizes"):
            batch[name] = torch.cat([sample[name] for sample in samples])
        if "grounding_labels" in samples[0]:
            batch["grounding_values"] = [image for sample in samples for image in sample["grounding_values"]]
            for name in ("grounding_labels", "target_names"):
                batch[name] = [sample[name] for sample in samples]
        batch["num_samples"] = sum("repeated" not in sample for sample in samples)
        batch["geometry"] = [plan for sample in samples for plan in sample["geometry"]]
        batch["sample_ids"] = [sample["id"] for sample in samples]
        batch["size"] = BatchSize(
            samples=len(samples),
            tokens=sum(map(_length, samples)),
            supervised_tokens=int((batch["labels"] != _IGNORED).sum()),
            patches=sum(
                math.prod(image.shape[1:]) // math.prod(patch.tolist())
                for image, patch in zip(batch["pixel_values"], batch["patch_sizes"], strict=True)
            ),
        )
        return batch


def _length(sample: Mapping[str, Any]) -> int:
    return sample["input_ids"].shape[1]


def _remove_labels(sample: dict[str, Any]) -> None:
    sample["labels"] = torch.full_like(sample["labels"], _IGNORED)
    sample["repeated"] = True
    if "grounding_labels" in sample:
        sample |= {"grounding_labels": {}, "target_names": []}
