"""Conversations about grounded reports: the report is asked for, and its phrases are marked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vividmed.data.conversations.conversation import Conversation, PhraseTarget
from vividmed.data.conversations.questions import located_targets, report_topic
from vividmed.data.conversations.settings import GroundedReportSettings, LabelType
from vividmed.data.conversations.templates import render_template
from vividmed.processing.grounded_text import format_grounded_text
from vividmed.processing.special_tokens import PHRASE_END, PHRASE_START


def grounded_report_conversation(
    row: Mapping[str, Any], *, generator: np.random.Generator, settings: GroundedReportSettings
) -> Conversation:
    """Ask for the report; the answer marks every phrase of the row, with a label or without.

    Raises:
        VividMedError: spans of phrases overlap or leave the text.
    """
    plain = row["report"].replace(PHRASE_START, "").replace(PHRASE_END, "")
    question = render_template(report_topic(plain), generator, modality=row["modality"])
    if not generator.random() < settings.grounding:
        return Conversation.from_turns([(question, plain)], [], grounding=False)
    masked, boxed = located_targets(row)
    ordered = sorted(row["phrases"], key=lambda phrase: phrase["start"])
    phrases = []
    for phrase in ordered:
        targets = tuple(phrase["targets"])
        label_type: LabelType | None = None
        if targets and (set(targets) <= masked or set(targets) <= boxed):
            label_type = "mask" if set(targets) <= masked else "box"
        phrases.append(
            PhraseTarget(text=phrase["text"].strip(), targets=targets, present=True, label_type=label_type)
        )
    limits: tuple[tuple[LabelType, int], ...] = (("mask", settings.max_masks), ("box", settings.max_boxes))
    for label_type, limit in limits:
        labelled = [i for i, phrase in enumerate(phrases) if phrase.label_type == label_type]
        for i in generator.permutation(labelled)[limit:]:
            phrases[i] = replace(phrases[i], label_type=None)
    marked = format_grounded_text(plain, [_span(phrase) for phrase in ordered])
    return Conversation.from_turns([(question, marked)], phrases, grounding=True)


def _span(phrase: Mapping[str, Any]) -> tuple[int, int]:
    """Characters of a phrase without the space that a row's markers may take in (``a<p> nodule</p>``)."""
    text = phrase["text"]
    return phrase["start"] + len(text) - len(text.lstrip()), phrase["end"] - len(text) + len(text.rstrip())
