"""Conversations about localization rows: questions for targets, answered by lists with phrases to ground."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vividmed.data.conversations.conversation import Conversation, PhraseTarget
from vividmed.data.conversations.questions import located_targets, modality_turn, presence_question
from vividmed.data.conversations.settings import LabelType, LocalizationSettings
from vividmed.data.conversations.templates import choose, render_template, wordings
from vividmed.data.taxonomy import Category, Taxonomy
from vividmed.processing.special_tokens import (
    NEGATIVE_PHRASE_END,
    NEGATIVE_PHRASE_START,
    PHRASE_END,
    PHRASE_START,
)


def localization_conversation(
    row: Mapping[str, Any], *, generator: np.random.Generator, settings: LocalizationSettings
) -> Conversation:
    """Ask for targets that are present and targets that are absent, anatomy first, then anomalies.

    Only names in the row's ``targets`` and ``absent`` are asked for: what was not annotated is neither.

    Raises:
        VividMedError: a target is not in the taxonomy, or there is nothing to ask for.
    """
    grounding = bool(generator.random() < settings.grounding)
    writer = _TurnWriter(
        row,
        generator,
        grounding=grounding,
        mark_absent=grounding and bool(generator.random() < settings.mark_absent),
        absent_label_type=settings.absent_label_type,
    )
    for category in ("anatomy", "anomaly"):
        present, absent = writer.of_category(category)
        # An open question must be answered by all anomalies, so there must not be too many of them.
        can_be_open = (
            category == "anomaly" and bool(present or absent) and len(present) <= settings.max_present
        )
        if can_be_open and generator.random() < settings.open_anomalies:
            writer.add_open_question(present)
            present = []
        present = _draw(present, settings.max_present, generator)
        absent = _draw(absent, settings.max_absent, generator)
        if present or absent:
            writer.add_presence_question(present, absent)
    first_turns = []
    if row["modality"] and (not writer.turns or generator.random() < settings.modality):
        first_turns = [modality_turn(row["modality"], generator)]
    return Conversation.from_turns([*first_turns, *writer.turns], writer.phrases, grounding=grounding)


class _TurnWriter:
    """Writes turns about the targets of one row, and collects the phrases that their answers mark.

    Args:
        row: the row.
        generator: draws wordings, synonyms and the order of targets.
        grounding: whether answers mark phrases.
        mark_absent: whether answers also mark absent targets.
        absent_label_type: label type of absent targets in a row that has no label of its own.
    """

    def __init__(
        self,
        row: Mapping[str, Any],
        generator: np.random.Generator,
        *,
        grounding: bool,
        mark_absent: bool,
        absent_label_type: LabelType | None,
    ):
        self.row = row
        self.generator = generator
        self.grounding = grounding
        self.masked, self.boxed = located_targets(row)
        used: LabelType | None = "mask" if self.masked else "box" if self.boxed else absent_label_type
        self.absent_label_type = used if mark_absent else None
        self.taxonomy = Taxonomy.load()
        self.turns: list[tuple[str, str]] = []
        self.phrases: list[PhraseTarget] = []

    def of_category(self, category: Category) -> tuple[list[str], list[str]]:
        """Present and absent targets of a category, as the row names them."""
        present, absent = (
            [name for name in self.row[column] if self.taxonomy[name].category == category]
            for column in ("targets", "absent")
        )
        return present, absent

    def add_presence_question(self, present: Sequence[str], absent: Sequence[str]) -> None:
        """Add a question answered by a list of yes and no."""
        states = dict.fromkeys(present, True) | dict.fromkeys(absent, False)
        order = self.generator.permutation(list(states))
        terms = {str(name): self.taxonomy.sample_term(str(name), self.generator) for name in order}
        listed = [
            f"{self._mark(name, term, states[name])}: {'yes' if states[name] else 'no'}"
            for name, term in terms.items()
        ]
        question = presence_question(list(terms.values()), self.generator, modality=self.row["modality"])
        self.turns.append((question, f"Results:{','.join(listed)}."))

    def add_open_question(self, present: Sequence[str]) -> None:
        """Add an open question for anomalies, answered by all that are present."""
        question = render_template("anomalies", self.generator, modality=self.row["modality"])
        question = f"{question} {choose(wordings('anomalies_form'), self.generator)}"
        if not present:
            self.turns.append((question, choose(wordings("no_anomaly"), self.generator)))
            return
        names = [str(name) for name in self.generator.permutation(list(present))]
        listed = [self._mark(name, self.taxonomy.sample_term(name, self.generator), True) for name in names]
        first = listed[0] if listed[0].startswith(" ") else f" {listed[0]}"
        self.turns.append((question, f"Results:{','.join([first, *listed[1:]])}."))

    def _mark(self, name: str, term: str, present: bool) -> str:
        """A term with its leading space, between phrase markers if it is to be grounded."""
        label_type: LabelType | None = self.absent_label_type
        if present:
            label_type = "mask" if name in self.masked else "box" if name in self.boxed else None
        if not self.grounding or label_type is None:
            return f" {term}"
        self.phrases.append(PhraseTarget(text=term, targets=(name,), present=present, label_type=label_type))
        if present:
            return f"{PHRASE_START} {term}{PHRASE_END}"
        return f"{NEGATIVE_PHRASE_START} {term}{NEGATIVE_PHRASE_END}"


def _draw(names: Sequence[str], limit: int, generator: np.random.Generator) -> list[str]:
    """Draw up to ``limit`` names without replacement."""
    return [str(name) for name in generator.permutation(list(names))[:limit]]
