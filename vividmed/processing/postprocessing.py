"""Map what the model finds on its own grid to phrases with masks and boxes on the original grid of the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vividmed.models.phrases.forms import (
    NOT_DRAWN,
    PhraseForm,
    default_form,
    presence_of_boxes,
    presence_of_masks,
)
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
    redrawn: Sequence[Sequence[np.ndarray | None] | None] | None = None,
    forms: Sequence[Sequence[PhraseForm]] | None = None,
    presence_thresholds: Mapping[str, float] | None = None,
    mask_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> list[GroundedText]:
    """Attach masks and boxes to the phrases of texts.

    Args:
        texts: one per sample.
        output: a ``GroundingOutput`` for the prompts of each sample, or None without grounding.
        first_prompts: per sample, the number of its first prompts that belong to no phrase of its text.
        geometry: per sample, the plan of the image that its phrases refer to; None without an image.
        redrawn: per sample, for each prompt its mask (D, H, W) on the original grid if it was drawn again there.
        exclusive: give each phrase either a mask or boxes: in a volume the mask unless it is empty, in a 2D image the
            boxes unless there are none. Published weights were trained this way, so that each segmenter also draws
            something for phrases that it was never trained on.
        forms: per sample, the form of each prompt; takes precedence over ``exclusive``.
        presence_thresholds: presence scores below which a ``"mask"`` or ``"box"`` is not shown, because the phrase is
            about something absent; None shows whatever the other thresholds leave.
        mask_threshold: lowest probability at which a voxel belongs to the mask.
        score_threshold: lowest score at which a box is kept.
    """
    placed = []
    thresholds = _Thresholds(mask_threshold, score_threshold, dict(presence_thresholds or {}))
    for sample, (parsed, plan) in enumerate(zip(texts, geometry, strict=True)):
        if output is None or plan is None:
            placed.append(_without_places(parsed))
            continue
        phrases = []
        for span in parsed.phrases:
            prompt = first_prompts[sample] + span.prompt_index
            form: PhraseForm = default_form(plan.original_size[0] > 1) if exclusive else "both"
            phrases.append(
                _place(
                    span,
                    plan,
                    mask_logits=_at(output.masks, sample, prompt),
                    redrawn=_at(redrawn, sample, prompt),
                    boxes=_at(output.boxes, sample, prompt),
                    box_logits=_at(output.box_logits, sample, prompt),
                    form=form if forms is None else forms[sample][prompt],
                    thresholds=thresholds,
                )
            )
        placed.append(GroundedText(parsed.text, phrases))
    return placed


@dataclass(frozen=True)
class _Thresholds:
    """Lowest probability of a voxel, score of a box, and presence score of a phrase by form."""

    mask: float
    score: float
    presence: dict[str, float]


def _at(values: Sequence[Any] | None, sample: int, prompt: int) -> Any:
    return None if values is None or values[sample] is None else values[sample][prompt]


def _without_places(parsed: ParsedText) -> GroundedText:
    return GroundedText(parsed.text, [Phrase(span.text, span.start, span.end) for span in parsed.phrases])


def _place(
    span: PhraseSpan,
    plan: ResizePlan,
    *,
    mask_logits: torch.Tensor | None,
    redrawn: np.ndarray | None,
    boxes: torch.Tensor | None,
    box_logits: torch.Tensor | None,
    form: PhraseForm,
    thresholds: _Thresholds,
) -> Phrase:
    """Carry one phrase's mask (d, h, w) and boxes (Q, 6), (Q,) to the original grid, as far as its form shows them."""
    found: dict[str, float] = {}
    corners, scores, mask = np.zeros((0, 6)), np.zeros(0), None

    def add_boxes() -> None:
        nonlocal corners, scores
        if boxes is not None and box_logits is not None and bool((box_logits > NOT_DRAWN).any()):
            found["box"] = float(presence_of_boxes(box_logits))
            if found["box"] >= thresholds.presence.get("box", 0.0):
                corners, scores = _original_boxes(boxes, box_logits.sigmoid(), plan, thresholds.score)

    def add_mask() -> None:
        nonlocal mask
        if mask_logits is not None and bool(mask_logits.amax() > NOT_DRAWN):
            found["mask"] = float(presence_of_masks(mask_logits))
            if found["mask"] >= max(thresholds.presence.get("mask", 0.0), thresholds.mask):
                inside = redrawn
                if inside is None:
                    inside = plan.restore_mask(mask_logits.float().sigmoid(), thresholds.mask).numpy()
                mask = inside if inside.any() else None

    if form in ("mask", "both", "mask first"):
        add_mask()
    # What a calibrated score says is absent is not looked for in the other form.
    asks_boxes = form == "mask first" and mask is None and "mask" not in thresholds.presence
    if form in ("box", "both", "box first") or asks_boxes:
        add_boxes()
    if form == "box first" and not len(corners) and "box" not in thresholds.presence:
        add_mask()
    shown = [
        found[name] for name, is_shown in (("mask", mask is not None), ("box", len(corners))) if is_shown
    ]
    affine = np.asarray(plan.affine)
    return Phrase(
        span.text,
        span.start,
        span.end,
        mask,
        corners,
        scores,
        boxes_to_mm(torch.from_numpy(corners), affine).numpy() if len(corners) else np.zeros((0, 6)),
        presence=max(shown or found.values(), default=None),
    )


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
