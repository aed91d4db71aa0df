"""Labels of phrases: their masks and boxes on the model's grid."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vividmed.data.batches.augmentation import Augmentation
from vividmed.data.conversations import PhraseTarget
from vividmed.data.masks import unpack_mask
from vividmed.errors import VividMedError
from vividmed.models.phrases.grounding import GroundingLabels
from vividmed.processing.boxes import clip_boxes, corners_to_fractions
from vividmed.processing.geometry import ResizePlan
from vividmed.triples import Triple

_HALF = 0.5
_ROWS_TOGETHER = 32


def grounding_labels(
    row: Mapping[str, Any],
    phrases: Sequence[PhraseTarget],
    *,
    size: Triple,
    plan: ResizePlan,
    augmentation: Augmentation | None = None,
) -> GroundingLabels:
    """Labels of all phrases that have a label type.

    A phrase is labelled with the union of its targets' masks, or with all of their boxes. Where a target is
    ``incomplete``, everything outside its masks and boxes is ignored.

    Args:
        row: row whose ``masks`` and ``boxes`` lie on the grid of its image as read.
        phrases: phrases in the order of the text, without those that truncation has cut off.
        size: (D, H, W) of the image as read.
        plan: how the image is resized to the model's grid, after ``augmentation``.
        augmentation: applied to masks and boxes as it was to the image.

    Raises:
        VividMedError: a mask or box does not lie on the grid of the image.
    """
    augmentation = augmentation or Augmentation()
    masked = [number for number, phrase in enumerate(phrases) if phrase.label_type == "mask"]
    boxed = [number for number, phrase in enumerate(phrases) if phrase.label_type == "box"]
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
    """Whether the phrase's targets may extend beyond what was annotated."""
    return phrase.present and not set(row["incomplete"]).isdisjoint(phrase.targets)


def _mask(
    row: Mapping[str, Any], targets: Sequence[str], size: Triple, plan: ResizePlan, augmentation: Augmentation
) -> torch.Tensor:
    """(D, H, W) bool on the model's grid."""
    entries = [entry for entry in row["masks"] if entry["target"] in targets]
    return masks_to_model(entries, size=size, plan=plan, augmentation=augmentation)


def _boxes(
    row: Mapping[str, Any], targets: Sequence[str], size: Triple, plan: ResizePlan, augmentation: Augmentation
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
            f"a box of {' and '.join(targets)} is inverted or leaves the image of size {size}; correct field 'boxes'"
        )
    moved = plan.boxes_to_model(torch.from_numpy(augmentation.boxes(corners, size)))
    return corners_to_fractions(clip_boxes(moved, plan.model_size), plan.model_size).float()


def masks_to_model(
    entries: Sequence[Mapping[str, Any]],
    *,
    size: Triple,
    plan: ResizePlan,
    augmentation: Augmentation | None = None,
) -> torch.Tensor:
    """Union of packed masks on the model's grid.

    The result equals that of :meth:`ResizePlan.apply_mask` on the full grid, except for voxels that are half covered
    to within rounding. Resizing is linear and separable, so only the block inside the box is resized: per axis it is
    multiplied by those columns of the resizing matrix that belong to the block.

    Args:
        entries: entries of a row's ``masks`` column.
        size: (D, H, W) of the grid they lie on.
        plan: how that grid is resized to the model's, after ``augmentation``.
        augmentation: applied to the masks as it was to the image.

    Returns:
        (D, H, W) bool.

    Raises:
        VividMedError: a mask does not lie on the grid, or is damaged.
    """
    result = torch.zeros(plan.model_size, dtype=torch.bool)
    entries = [entry for entry in entries if any(entry["box"])]
    if not entries:
        return result
    block, box = _union(entries, size)
    if augmentation is not None:
        block = augmentation.array(block)
        box = augmentation.boxes(box[None].astype(float), size)[0].round().astype(int)
    values = torch.from_numpy(block).float()
    values = values.permute(*plan.axes)
    place: dict[int, slice] = {}
    # The axis that shrinks most comes first, which leaves less to do for the others.
    for axis in sorted(range(3), key=lambda axis: plan.resized_size[axis] / plan.oriented_size[axis]):
        source, flip = plan.axes[axis], plan.flips[axis]
        low, high = int(box[source]), int(box[source + 3])
        if flip:
            low, high = plan.oriented_size[axis] - high, plan.oriented_size[axis] - low
        weights = _weights(plan.oriented_size[axis], plan.resized_size[axis])[:, low:high]
        rows = weights.any(dim=1).nonzero()[:, 0]
        first, last = int(rows[0]), int(rows[-1]) + 1
        # A flipped axis meets flipped weights, so that the block itself is not copied.
        values = _multiply(weights[first:last].flip(1) if flip else weights[first:last], values, axis)
        before = plan.padding[axis][0]
        place[axis] = slice(before + first, before + last)
    result[place[0], place[1], place[2]] = values >= _HALF
    return result


def _union(entries: Sequence[Mapping[str, Any]], size: Triple) -> tuple[np.ndarray, np.ndarray]:
    """Bool block that contains all masks, and its box (z0, y0, x0, z1, y1, x1)."""
    boxes = np.array([entry["box"] for entry in entries])
    box = np.concatenate([boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)])
    shape = tuple(int(n) for n in np.minimum(box[3:], size) - box[:3])
    block = np.zeros(shape, dtype=bool)
    for entry in entries:
        shifted = {**entry, "box": [int(v) for v in entry["box"] - np.tile(box[:3], 2)]}
        block |= unpack_mask(shifted, shape)  # type: ignore[arg-type]
    return block, box


def _multiply(weights: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply one axis of (D, H, W) by a matrix (new, old) without moving the axis, which would copy the values.

    Only a band of the matrix differs from zero. So a few rows at a time meet only the values that they weigh.
    """
    results = []
    for rows in weights.split(_ROWS_TOGETHER):
        weighed = rows.any(dim=0).nonzero()[:, 0]
        first, last = (int(weighed[0]), int(weighed[-1]) + 1) if len(weighed) else (0, 1)
        band, met = rows[:, first:last], values.narrow(axis, first, last - first)
        if axis == 0:
            results.append((band @ met.flatten(1)).unflatten(1, met.shape[1:]))
        else:
            results.append(band @ met if axis == 1 else met @ band.T)
    return torch.cat(results, dim=axis)


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> torch.Tensor:
    """(new, old) matrix of the model's linear resizing of an axis, anti-aliased where it shrinks."""
    identity = torch.eye(old)
    if old == new:
        return identity
    resized = F.interpolate(
        identity[None, None], (old, new), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0].T.contiguous()
