"""Ground texts that the user gives: the phrases of a report, or a single phrase."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vividmed.errors import VividMedError
from vividmed.inference.full_resolution import segment_at_full_resolution
from vividmed.inference.prompt_length import check_prompt_length
from vividmed.inference.target_forms import TargetForms
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.phrases.forms import PhraseForm, usable_form
from vividmed.models.phrases.grounding import GroundingOutput
from vividmed.processing.geometry import ResizePlan
from vividmed.processing.grounded_text import (
    GroundedText,
    Phrase,
    format_grounded_text,
    parse_grounded_text,
)
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.postprocessing import place_phrases
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.processing.reading import ImageSource, read_image

# Questions as in training. The answer is given, so any of their wordings serves.
REPORT_QUESTION = "Can you provide a radiology report for this medical image?"
PHRASE_QUESTION = "Is there {phrase} in this image? Answer with yes or no."
_NO_FORM: PhraseForm = "none"


def ground_report(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    image: ImageSource,
    report: str,
    spans: Sequence[tuple[int, int]] | None = None,
    **options: Any,
) -> GroundedText:
    """Find the phrases of an existing report in its image.

    Args:
        model: model with segmenters.
        processor: processor of the model.
        image: as in :func:`vividmed.processing.reading.read_image`.
        report: the text; its phrases are marked ``<p>phrase</p>``, or given by ``spans``.
        spans: (start, end) characters of the phrases in a text without markers.
        **options: of :func:`ground_reports`.

    Returns:
        The text without markers and its phrases; masks and boxes on the image's grid as it was read.

    Raises:
        VividMedError: the text has no phrase, or the model no segmenter.
    """
    if spans is None:
        given = parse_grounded_text(report)
        report, spans = given.text, [(phrase.start, phrase.end) for phrase in given.phrases]
    (placed,) = ground_reports(model, processor, [image], [report], [spans], **options)
    return placed


@torch.no_grad()
def ground_reports(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    images: Sequence[ImageSource],
    reports: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    *,
    question: str = REPORT_QUESTION,
    masks: bool = True,
    boxes: bool = True,
    mask_threshold: float = 0.5,
    score_threshold: float = 0.5,
    full_resolution: bool = False,
    default: PhraseForm = "both",
) -> list[GroundedText]:
    """Find the phrases of existing reports, each in its image, in one pass of the model.

    Args:
        model: model with segmenters.
        processor: processor of the model.
        images: one per report, as in :func:`vividmed.processing.reading.read_image`.
        reports: texts without markers.
        spans: (start, end) characters of the phrases of each text.
        question: question that the reports answer.
        masks: draw masks, if the model has a segmenter.
        boxes: find boxes, if the model has an instance segmenter.
        mask_threshold: lowest probability at which a voxel belongs to a mask.
        score_threshold: lowest score at which a box is kept.
        full_resolution: draw the masks again on the image's own voxels, window by window around what was found.
        default: form of phrases whose target had both forms in training, or none that the configuration records.

    Returns:
        For each report, the text and its phrases; masks and boxes on the image's grid as it was read.

    Raises:
        VividMedError: a text has no phrase or is longer than the model reads, or the model has no segmenter.
    """
    # Markers stand as in training, the space before a phrase inside them, wherever they were given.
    marked = [format_grounded_text(*pair) for pair in zip(reports, spans, strict=True)]
    parsed = [parse_grounded_text(text) for text in marked]
    if not all(text.phrases for text in parsed):
        raise VividMedError(
            "the report marks no phrase; put <p> and </p> around phrases, or give their spans"
        )
    read = [read_image(image) for image in images]
    asked = {"role": "user", "content": question}
    batch = processor(
        images=[[image] for image in read],
        conversations=[[asked, {"role": "assistant", "content": text}] for text in marked],
        grounding=True,
    )
    check_prompt_length(model.config, batch)
    geometry = batch.pop("geometry")
    for name in ("labels", "label_weights"):
        batch.pop(name)
    form_of = TargetForms(model.config.target_forms)
    ends = (batch["input_ids"] == model.config.phrase_end_token_id).sum(dim=1).tolist()
    # Phrases before those of the answer belong to no phrase of its text.
    before = [end - len(text.phrases) for end, text in zip(ends, parsed, strict=True)]
    forms: list[list[PhraseForm]] = [
        [
            *[_NO_FORM] * number,
            *(
                usable_form(
                    default if form in (None, "both") else form,
                    has_masks=masks and model.segmenter is not None,
                    has_boxes=boxes and model.instance_segmenter is not None,
                )
                for form in (form_of(phrase.text) for phrase in text.phrases)
            ),
        ]
        for number, text in zip(before, parsed, strict=True)
    ]
    output = model.ground(**batch.to(model.device), masks=masks, boxes=boxes, forms=forms)
    placed: list[GroundedText] = []
    for number, (text, medical_image, plan) in enumerate(zip(parsed, read, geometry, strict=True)):
        found, redrawn = output.of_sample(number), None
        if full_resolution:
            redrawn = redraw(model, processor, medical_image, found, plan=plan, mask_threshold=mask_threshold)
        placed += place_phrases(
            [text],
            output=found,
            first_prompts=[before[number]],
            geometry=[plan],
            redrawn=[redrawn],
            forms=[forms[number]],
            presence_thresholds=model.config.presence_thresholds,
            mask_threshold=mask_threshold,
            score_threshold=score_threshold,
        )
    return placed


def redraw(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    image: MedicalImage,
    output: GroundingOutput,
    *,
    plan: ResizePlan,
    mask_threshold: float = 0.5,
) -> list[np.ndarray | None] | None:
    """Draw the masks of one image again on its own voxels.

    Args:
        model: model with segmenters.
        processor: processor of the model.
        image: the image as read.
        output: prompts and masks of a batch of this one image.
        plan: plan by which the model saw the image.
        mask_threshold: a phrase whose mask reaches this probability nowhere counts as not found.

    Returns:
        For each prompt its mask (D, H, W), or None if it was not found; None if there is nothing to draw.
    """
    (logits,), (prompts,) = output.masks or [None], output.prompts or [None]
    if model.segmenter is None or logits is None or prompts is None or not len(logits):
        return None
    scale = processor.image_processor.intensity_scale(image)
    return segment_at_full_resolution(
        model.segmenter, image.array, scale, prompts, logits, plan=plan, mask_threshold=mask_threshold
    )


def ground_phrase(
    model: VividMedForCausalLM, processor: VividMedProcessor, image: ImageSource, phrase: str, **options
) -> Phrase:
    """Find one thing: ``ground_phrase(model, processor, "ct.nii.gz", "left kidney")``.

    Args:
        model: model with segmenters.
        processor: processor of the model.
        image: as in :func:`vividmed.processing.reading.read_image`.
        phrase: name of a structure or finding, preferably one of the taxonomy.
        **options: of :func:`ground_report` and :func:`ground_reports`.

    Raises:
        VividMedError: the phrase is empty or contains a marker, or the model has no segmenter.
    """
    phrase = phrase.strip()
    if not phrase:
        raise VividMedError("the phrase is empty; name a structure or finding, such as 'left kidney'")
    answer = f"Results: {phrase}: yes."
    start = len("Results: ")
    question = PHRASE_QUESTION.format(phrase=phrase)
    spans = [(start, start + len(phrase))]
    return ground_report(model, processor, image, answer, spans, question=question, **options).phrases[0]
