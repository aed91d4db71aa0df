"""Masks and boxes of a row's phrases, on the grid that the model sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vividmed.data.augmentation import Augmentation
from vividmed.data.conversations import PhraseTarget
from vividmed.data.mask_resizing import masks_to_model
from vividmed.errors import VividMedError
from vividmed.models.grounding import GroundingLabels
from vividmed.processing.boxes import clip_boxes, corners_to_fractions
from vividmed.processing.geometry import ResizePlan

Size = tuple[int, int, int]


def grounding_labels(
    row: Mapping[str, Any],
    phrases: Sequence[PhraseTarget],
    *,
    size: Size,
    plan: ResizePlan,
    augmentation: Augmentation | None = None,
) -> GroundingLabels:
    """Labels of the phrases that have one.

    Each phrase gets the masks or boxes of its own targets; several targets, or instances, of a phrase make one mask
    or all their boxes. Where a target is ``incomplete``, what lies outside of its masks and boxes is ignored.

    Args:
        row: with ``masks`` and ``boxes`` on the grid of its image as it was read.
        phrases: in the order of the text; those that truncation has cut off left out.
        size: (D, H, W) of the image as it was read.
        plan: from there to the model's grid, after ``augmentation``.
        augmentation: moves masks and boxes as it moved the image.

    Raises:
        VividMedError: a mask or box does not lie on the grid of the image.
    """
    augmentation = augmentation or Augmentation()
    masked = [number for number, phrase in enumerate(phrases) if phrase.kind == "mask"]
    boxed = [number for number, phrase in enumerate(phrases) if phrase.kind == "box"]
    labels: GroundingLabels = {}
    if masked:
        labels["mask_phrases"] = torch.tensor(masked)
        labels["masks"] = torch.stack(
            [_mask(row, phrases[number].targets, size, plan, augmentation) for number in masked]
        )
        incomplete = torch.tensor([_is_incomplete(row, phrases[number]) for number in masked])
        if incomplete.any():
            labels["ignore"] = ~labels["masks"] & incomplete[:, None, None, None]
    if boxed:
        boxes = [_boxes(row, phrases[number].targets, size, plan, augmentation) for number in boxed]
        labels["box_phrases"] = torch.tensor(boxed)
        labels["box_counts"] = torch.tensor([len(of_phrase) for of_phrase in boxes])
        labels["boxes"] = torch.cat(boxes)
        incomplete = torch.tensor([_is_incomplete(row, phrases[number]) for number in boxed])
        if incomplete.any():
            labels["exhaustive"] = ~incomplete
    return labels


def _is_incomplete(row: Mapping[str, Any], phrase: PhraseTarget) -> bool:
    """Whether there may be more of the phrase's targets than was annotated."""
    return phrase.present and not set(row["incomplete"]).isdisjoint(phrase.targets)


def _mask(
    row: Mapping[str, Any], targets: Sequence[str], size: Size, plan: ResizePlan, augmentation: Augmentation
) -> torch.Tensor:
    """(D, H, W) bool on the model's grid."""
    entries = [entry for entry in row["masks"] if entry["target"] in targets]
    return masks_to_model(entries, size=size, plan=plan, augmentation=augmentation)


def _boxes(
    row: Mapping[str, Any], targets: Sequence[str], size: Size, plan: ResizePlan, augmentation: Augmentation
) -> torch.Tensor:
    """(n, 6) float32, centre and size as fractions of the model's grid."""
    corners = np.array([entry["box"] for entry in row["boxes"] if entry["target"] in targets], dtype=float)
    corners = corners.reshape(-1, 6)
    if (
        (corners[:, :3] < 0).any()
        or (corners[:, 3:] > size).any()
        or (corners[:, :3] >= corners[:, 3:]).any()
    ):
        raise VividMedError(
            f"a box of {' and '.join(targets)} is inverted or leaves the image of size {size}; mend field 'boxes'"
        )
    moved = plan.boxes_to_model(torch.from_numpy(augmentation.boxes(corners, size)))
    return corners_to_fractions(clip_boxes(moved, plan.model_size), plan.model_size).float()
