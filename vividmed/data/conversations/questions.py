"""Questions that conversations about several kinds of rows share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vividmed.data.conversations.grammar import enumerate_phrases, noun_phrase
from vividmed.data.conversations.templates import render_template
from vividmed.data.taxonomy import Taxonomy


def presence_question(
    terms: Sequence[str],
    generator: np.random.Generator,
    *,
    modality: str | None,
    instruction: str = "presence_instruction",
) -> str:
    """Ask which of several things are visible.

    Args:
        terms: names or synonyms of targets.
        generator: draws the wording.
        modality: modality of the image; None if the question must not give it away.
        instruction: topic of the template that says how to answer.
    """
    taxonomy = Taxonomy.load()
    phrases = [
        noun_phrase(term, anomaly=term in taxonomy and taxonomy[term].category == "anomaly") for term in terms
    ]
    names = enumerate_phrases(phrases)
    question = render_template("presence", generator, modality=modality, names=names)
    return f"{question} {render_template(instruction, generator, names=names)}"


def modality_turn(modality: str, generator: np.random.Generator) -> tuple[str, str]:
    """Question and answer about the modality."""
    return render_template("modality", generator), f"The modality of this image is {modality}."


def report_topic(report: str) -> str:
    """Topic of the template that asks for a report: with both sections, with findings only, or without sections."""
    if report.lstrip().startswith("Findings:"):
        return "report" if "Impression:" in report else "findings"
    return "plain_report"


def located_targets(row: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Targets of a row that have a mask, and targets that have a box."""
    masked, boxed = ({entry["target"] for entry in row[column]} for column in ("masks", "boxes"))
    return masked, boxed
