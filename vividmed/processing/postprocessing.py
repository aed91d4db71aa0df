"""Map what the model finds on its own grid to phrases with masks and boxes on the original grid of the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vividmed.processing.boxes import boxes_to_mm, clip_boxes, fractions_to_corners
from vividmed.processing.geometry import ResizePlan
from vividmed.processing.grounded_text import GroundedText, ParsedText, Phrase, PhraseSpan


def place_phrases(
    texts: Sequence[ParsedText],
    *,
    output: Any,
    first_prompts: Sequence[int],
    geometry: Sequence[ResizePlan | None],
    exclusive: bool = False,
    mask_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> list[GroundedText]:
    """Attach masks and boxes to the phrases of texts.

    Args:
        texts: one per sample.
        output: a ``GroundingOutput`` for whole sequences, prompt included, or None without grounding.
        first_prompts: per sample, the number of ``</p>`` in its prompt.
        geometry: per sample, the plan of the image that its phrases refer to; None without an image.
        exclusive: give each phrase either a mask or boxes: in a volume the mask unless it is empty, in a 2D image the
            boxes unless there are none. Published weights were trained this way, so that each segmenter also draws
            something for phrases that it was never trained on.
        mask_threshold: lowest probability at which a voxel belongs to the mask.
        score_threshold: lowest score at which a box is kept.
    """
    placed = []
    for sample, (parsed, plan) in enumerate(zip(texts, geometry, strict=True)):
        if output is None or plan is None:
            placed.append(_without_places(parsed))
            continue
        phrases = []
        for span in parsed.phrases:
            prompt = first_prompts[sample] + span.prompt_index
            phrases.append(
                _place(
                    span,
                    plan,
                    mask_logits=_at(output.masks, sample, prompt),
                    boxes=_at(output.boxes, sample, prompt),
                    box_logits=_at(output.box_logits, sample, prompt),
                    exclusive=exclusive,
                    mask_threshold=mask_threshold,
                    score_threshold=score_threshold,
                )
            )
        placed.append(GroundedText(parsed.text, phrases))
    return placed


def _at(values: list[torch.Tensor | None] | None, sample: int, prompt: int) -> torch.Tensor | None:
    return None if values is None or values[sample] is None else values[sample][prompt]  # type: ignore[index]


def _without_places(parsed: ParsedText) -> GroundedText:
    return GroundedText(parsed.text, [Phrase(span.text, span.start, span.end) for span in parsed.phrases])


def _place(
    span: PhraseSpan,
    plan: ResizePlan,
    *,
    mask_logits: torch.Tensor | None,
    boxes: torch.Tensor | None,
    box_logits: torch.Tensor | None,
    exclusive: bool,
    mask_threshold: float,
    score_threshold: float,
) -> Phrase:
    """Carry one phrase's mask (D, H, W) and boxes (Q, 6), (Q,) to the original grid."""
    corners, scores = np.zeros((0, 6)), np.zeros(0)
    if boxes is not None and box_logits is not None:
        corners, scores = _original_boxes(boxes, box_logits.sigmoid(), plan, score_threshold)
    mask = None
    is_volume = plan.original_size[0] > 1
    if mask_logits is not None and not (exclusive and not is_volume and len(corners)):
        found = plan.restore(mask_logits.float().sigmoid().cpu()) >= mask_threshold
        mask = found.numpy() if bool(found.any()) else None
    if exclusive and mask is not None:
        corners, scores = np.zeros((0, 6)), np.zeros(0)
    affine = np.asarray(plan.affine)
    boxes_mm = boxes_to_mm(torch.from_numpy(corners), affine).numpy() if len(corners) else np.zeros((0, 6))
    return Phrase(span.text, span.start, span.end, mask, corners, scores, boxes_mm)


def _original_boxes(
    boxes: torch.Tensor, scores: torch.Tensor, plan: ResizePlan, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Convert boxes (Q, 6) in the model's form, with scores (Q,), to voxel corners; those kept, best first."""
    scores, order = scores.cpu().double().sort(descending=True)
    order = order[scores >= threshold]
    corners = plan.boxes_to_original(fractions_to_corners(boxes.cpu()[order], plan.model_size))
    corners = clip_boxes(corners, plan.original_size)
    inside = (corners[:, :3] < corners[:, 3:]).all(dim=1)
    return corners[inside].numpy(), scores[: len(order)][inside].numpy()
