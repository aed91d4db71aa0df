"""Conversations about vision-language rows: the row's own turns, with their questions reworded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vividmed.data.conversations.conversation import Conversation
from vividmed.data.conversations.questions import modality_turn, presence_question, report_topic
from vividmed.data.conversations.settings import VisionLanguageSettings
from vividmed.data.conversations.templates import render_template
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.special_tokens import PHRASE_END


def vision_language_conversation(
    row: Mapping[str, Any], *, generator: np.random.Generator, settings: VisionLanguageSettings
) -> Conversation:
    """Take the row's own turns, reword their questions, and sometimes ask for the modality or plane first.

    A row with a report and other turns (its ``kind`` joins theirs by ``+``) gives either the report or the others.

    Raises:
        VividMedError: the row has no messages, or a question without an answer.
    """
    turns = _typed_turns(row)
    turn_kinds = {turn_kind for turn_kind, _, _ in turns}
    for other, probability in (("presence", settings.presence_for_report), ("vqa", settings.vqa_for_report)):
        if {"report", other} <= {turn_kind for turn_kind, _, _ in turns}:
            unwanted = "report" if generator.random() < probability else other
            turns = [turn for turn in turns if turn[0] != unwanted]
    if turn_kinds == {"vqa"}:
        turns = [turns[i] for i in generator.permutation(len(turns))]
    own_turns = [_reworded(*turn, modality=row["modality"], generator=generator) for turn in turns]
    first_turns = []
    if row["modality"] and "modality" not in turn_kinds and generator.random() < settings.modality:
        first_turns.append(modality_turn(row["modality"], generator))
    if row["plane"] and "plane" not in turn_kinds and generator.random() < settings.plane:
        first_turns.append(
            (render_template("plane", generator), f"The plane of this image is {row['plane']}.")
        )
    first_turns = [first_turns[i] for i in generator.permutation(len(first_turns))]
    return Conversation.from_turns([*first_turns, *own_turns], [], grounding=False)


def _typed_turns(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Kind, question and answer of each turn."""
    texts = [message["content"] for message in row["messages"]]
    if not texts or len(texts) % 2:
        raise VividMedError(
            f"field 'messages' has {len(texts)} messages; give a question and an answer per turn"
        )
    turn_kinds = row["kind"].split("+")
    if len(turn_kinds) != len(texts) // 2:
        turn_kinds = [row["kind"]] * (len(texts) // 2)
    return list(zip(turn_kinds, texts[::2], texts[1::2], strict=True))


def _reworded(
    turn_kind: str, question: str, answer: str, *, modality: str | None, generator: np.random.Generator
) -> tuple[str, str]:
    if turn_kind == "report":
        return render_template(report_topic(answer), generator, modality=modality), answer
    if turn_kind == "caption":
        return render_template("caption", generator, modality=modality), answer
    if turn_kind in ("modality", "plane"):
        return render_template(turn_kind, generator), answer
    if turn_kind == "presence" and (states := _listed_states(answer)):
        return _reordered(states, modality=modality, generator=generator)
    return question, answer


def _listed_states(answer: str) -> dict[str, str]:
    """``Results: liver: yes, spleen: no.`` as a dict; empty if the answer has another form."""
    if not answer.startswith("Results:") or PHRASE_END in answer:
        return {}
    pairs = [pair.rpartition(":") for pair in answer.removeprefix("Results:").rstrip(". ").split(",")]
    states = {name.strip(): state.strip() for name, _, state in pairs}
    return (
        states if all(name and state in ("yes", "no", "uncertain") for name, state in states.items()) else {}
    )


def _reordered(
    states: Mapping[str, str], *, modality: str | None, generator: np.random.Generator
) -> tuple[str, str]:
    """The same list in another order and with other synonyms."""
    taxonomy = Taxonomy.load()
    names = [str(name) for name in generator.permutation(list(states))]
    terms = {name: taxonomy.sample_term(name, generator) if name in taxonomy else name for name in names}
    instruction = "uncertain_instruction" if "uncertain" in states.values() else "presence_instruction"
    question = presence_question(list(terms.values()), generator, modality=modality, instruction=instruction)
    return question, f"Results:{','.join(f' {terms[name]}: {states[name]}' for name in names)}."
