"""Rows to conversations, in the answer formats that the model was published with.

Every choice comes from the generator that the caller gives: :func:`sample_generator` makes it from (seed, epoch,
index), so that a sample is the same for any number of workers and after any interruption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vividmed.data.conversations.grammar import enumerate_phrases, noun_phrase
from vividmed.data.conversations.settings import (
    ConversationSettings,
    GroundedReportSettings,
    LabelKind,
    LocalizationSettings,
    VisionLanguageSettings,
)
from vividmed.data.conversations.templates import choose, render_template, wordings
from vividmed.data.taxonomy import Category, Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import format_grounded_text
from vividmed.processing.special_tokens import (
    NEGATIVE_PHRASE_END,
    NEGATIVE_PHRASE_START,
    PHRASE_END,
    PHRASE_START,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PhraseTarget:
    """What one ``</p>`` of a conversation is to be grounded in; phrases are listed in the order of the text.

    Attributes:
        text: the phrase without markers.
        targets: names as the row's ``masks`` and ``boxes`` columns have them; the phrase's mask is the union of
            theirs, its boxes are all of theirs.
        present: False for a phrase about something that is not there: an empty mask, or no box.
        kind: which form the label has; None where the phrase has no label and gives no grounding loss.
    """

    text: str
    targets: tuple[str, ...]
    present: bool
    kind: LabelKind | None

    @property
    def labelled(self) -> bool:
        """Entry of the published ``vg_label_mask``."""
        return self.kind is not None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation about one image, to be given to the processor with the flag ``grounding``.

    Attributes:
        messages: ``{"role": "user" | "assistant", "content": text}`` in turns, answers with phrase markers.
        phrases: one for every phrase end marker, in order.
        grounding: whether the answers are to be grounded.
    """

    messages: list[dict[str, str]]
    phrases: list[PhraseTarget]
    grounding: bool


def sample_generator(*, seed: int, epoch: int, index: int) -> np.random.Generator:
    """The source of all randomness of one sample."""
    return np.random.default_rng((seed, epoch, index))


def build_conversation(
    kind: str, row: Row, *, generator: np.random.Generator, settings: ConversationSettings | None = None
) -> Conversation:
    """Draw a conversation about a row of any kind; images, mask bits and the like are not touched.

    Args:
        kind: ``localization``, ``vision_language`` or ``grounded_report``.
        row: of :mod:`vividmed.data.schema`.
        generator: see :func:`sample_generator`.
        settings: None for the published ones.

    Raises:
        VividMedError: unknown kind, a target that is not in the taxonomy, or a row without anything to ask for.
    """
    settings = settings or ConversationSettings()
    try:
        if kind == "localization":
            return localization_conversation(row, generator=generator, settings=settings.localization)
        if kind == "vision_language":
            return discuss_image(row, generator=generator, settings=settings.vision_language)
        if kind == "grounded_report":
            return discuss_report(row, generator=generator, settings=settings.grounded_report)
    except VividMedError as error:
        raise VividMedError(f"row {row.get('id') or '(without id)'}: {error}") from error
    raise VividMedError(
        f"kind {kind!r} is not a kind of row; use localization, vision_language or grounded_report"
    )


def localization_conversation(
    row: Row, *, generator: np.random.Generator, settings: LocalizationSettings
) -> Conversation:
    """Ask for targets that are present and absent, anatomy first, then anomalies.

    Only names of the row's ``targets`` and ``absent`` are asked for: what was not annotated is neither.

    Raises:
        VividMedError: a target is not in the taxonomy.
    """
    grounding = bool(generator.random() < settings.grounding)
    speaker = _Speaker(
        row=row,
        generator=generator,
        grounding=grounding,
        mark_absent=grounding and bool(generator.random() < settings.mark_absent),
        absent_kind=settings.absent_kind,
    )
    for category in ("anatomy", "anomaly"):
        present, absent = speaker.of_category(category)
        listable = category == "anomaly" and bool(present or absent) and len(present) <= settings.max_present
        if listable and generator.random() < settings.open_anomalies:
            speaker.ask_openly(present)
            present = []
        present = _draw(present, settings.max_present, generator)
        absent = _draw(absent, settings.max_absent, generator)
        if present or absent:
            speaker.ask_presence(present, absent)
    front = []
    if row["modality"] and (not speaker.turns or generator.random() < settings.modality):
        front = [_modality_turn(row["modality"], generator)]
    return _conversation([*front, *speaker.turns], speaker.phrases, grounding=grounding)


def discuss_image(
    row: Row, *, generator: np.random.Generator, settings: VisionLanguageSettings
) -> Conversation:
    """Take the row's own turns, with questions reworded, and ask for the modality or plane first at times.

    Of a row that holds a report and other turns (its ``kind`` joins theirs by ``+``), either the report or the others
    are discussed.

    Raises:
        VividMedError: the row has no messages, or a question without an answer.
    """
    turns = _typed_turns(row)
    kinds = {kind for kind, _, _ in turns}
    for other, probability in (("presence", settings.presence_for_report), ("vqa", settings.vqa_for_report)):
        if {"report", other} <= {kind for kind, _, _ in turns}:
            unwanted = "report" if generator.random() < probability else other
            turns = [turn for turn in turns if turn[0] != unwanted]
    if kinds == {"vqa"}:
        turns = [turns[i] for i in generator.permutation(len(turns))]
    body = [_reworded(*turn, modality=row["modality"], generator=generator) for turn in turns]
    front = []
    if row["modality"] and "modality" not in kinds and generator.random() < settings.modality:
        front.append(_modality_turn(row["modality"], generator))
    if row["plane"] and "plane" not in kinds and generator.random() < settings.plane:
        front.append((render_template("plane", generator), f"The plane of this image is {row['plane']}."))
    front = [front[i] for i in generator.permutation(len(front))]
    return _conversation([*front, *body], [], grounding=False)


def discuss_report(
    row: Row, *, generator: np.random.Generator, settings: GroundedReportSettings
) -> Conversation:
    """Ask for the report; the answer marks every phrase of the row, with a label or without.

    Raises:
        VividMedError: spans of phrases that overlap or leave the text.
    """
    plain = row["report"].replace(PHRASE_START, "").replace(PHRASE_END, "")
    question = render_template(_report_topic(plain), generator, modality=row["modality"])
    if not generator.random() < settings.grounding:
        return _conversation([(question, plain)], [], grounding=False)
    masked, boxed = _located(row)
    ordered = sorted(row["phrases"], key=lambda phrase: phrase["start"])
    phrases = []
    for phrase in ordered:
        targets = tuple(phrase["targets"])
        kind: LabelKind | None = None
        if targets and (set(targets) <= masked or set(targets) <= boxed):
            kind = "mask" if set(targets) <= masked else "box"
        phrases.append(PhraseTarget(text=phrase["text"], targets=targets, present=True, kind=kind))
    limits: tuple[tuple[LabelKind, int], ...] = (("mask", settings.max_masks), ("box", settings.max_boxes))
    for kind, limit in limits:
        labelled = [i for i, phrase in enumerate(phrases) if phrase.kind == kind]
        for i in generator.permutation(labelled)[limit:]:
            phrases[i] = replace(phrases[i], kind=None)
    marked = format_grounded_text(plain, [(phrase["start"], phrase["end"]) for phrase in ordered])
    return _conversation([(question, marked)], phrases, grounding=True)


class _Speaker:
    """Writes question and answer turns about the targets of one localization row."""

    def __init__(
        self,
        *,
        row: Row,
        generator: np.random.Generator,
        grounding: bool,
        mark_absent: bool,
        absent_kind: LabelKind | None,
    ):
        self.row = row
        self.generator = generator
        self.grounding = grounding
        self.masked, self.boxed = _located(row)
        told: LabelKind | None = "mask" if self.masked else "box" if self.boxed else absent_kind
        self.absent_kind = told if mark_absent else None
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

    def ask_presence(self, present: Sequence[str], absent: Sequence[str]) -> None:
        """A question for a list of yes and no."""
        states = dict.fromkeys(present, True) | dict.fromkeys(absent, False)
        order = self.generator.permutation(list(states))
        terms = {str(name): self.taxonomy.sample_term(str(name), self.generator) for name in order}
        listed = [
            f"{self._mark(name, term, states[name])}: {_yes_no(states[name])}" for name, term in terms.items()
        ]
        question = _presence_question(
            list(terms.values()), self.generator, modality=self.row["modality"], form="presence_instruction"
        )
        self.turns.append((question, f"Results:{','.join(listed)}."))

    def ask_openly(self, present: Sequence[str]) -> None:
        """An open question for anomalies, answered by all that are present."""
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
        """A term with its leading space, between phrase markers where it is to be grounded."""
        kind: LabelKind | None = self.absent_kind
        if present:
            kind = "mask" if name in self.masked else "box" if name in self.boxed else None
        if not self.grounding or kind is None:
            return f" {term}"
        self.phrases.append(PhraseTarget(text=term, targets=(name,), present=present, kind=kind))
        if present:
            return f"{PHRASE_START} {term}{PHRASE_END}"
        return f"{NEGATIVE_PHRASE_START} {term}{NEGATIVE_PHRASE_END}"


def _located(row: Row) -> tuple[set[str], set[str]]:
    """Targets that have a mask, and those that have a box."""
    masked, boxed = ({entry["target"] for entry in row[column]} for column in ("masks", "boxes"))
    return masked, boxed


def _draw(names: Sequence[str], limit: int, generator: np.random.Generator) -> list[str]:
    """Up to ``limit`` names without replacement."""
    return [str(name) for name in generator.permutation(list(names))[:limit]]


def _yes_no(present: bool) -> str:
    return "yes" if present else "no"


def _presence_question(
    terms: Sequence[str], generator: np.random.Generator, *, modality: str | None, form: str
) -> str:
    taxonomy = Taxonomy.load()
    phrases = [
        noun_phrase(term, anomaly=term in taxonomy and taxonomy[term].category == "anomaly") for term in terms
    ]
    names = enumerate_phrases(phrases)
    return f"{render_template('presence', generator, modality=modality, names=names)} {render_template(form, generator, names=names)}"


def _modality_turn(modality: str, generator: np.random.Generator) -> tuple[str, str]:
    return render_template("modality", generator), f"The modality of this image is {modality}."


def _report_topic(report: str) -> str:
    """Which wordings of the request suit a report: with both sections, with findings alone, or without sections."""
    if report.lstrip().startswith("Findings:"):
        return "report" if "Impression:" in report else "findings"
    return "plain_report"


def _typed_turns(row: Row) -> list[tuple[str, str, str]]:
    """Kind, question and answer of each turn."""
    texts = [message["content"] for message in row["messages"]]
    if not texts or len(texts) % 2:
        raise VividMedError(f"field 'messages' has {len(texts)} turns; give a question and an answer each")
    kinds = row["kind"].split("+")
    if len(kinds) != len(texts) // 2:
        kinds = [row["kind"]] * (len(texts) // 2)
    return list(zip(kinds, texts[::2], texts[1::2], strict=True))


def _reworded(
    kind: str, question: str, answer: str, *, modality: str | None, generator: np.random.Generator
) -> tuple[str, str]:
    if kind == "report":
        return render_template(_report_topic(answer), generator, modality=modality), answer
    if kind == "caption":
        return render_template("caption", generator, modality=modality), answer
    if kind in ("modality", "plane"):
        return render_template(kind, generator), answer
    if kind == "presence" and (states := _listed_states(answer)):
        return _relisted(states, modality=modality, generator=generator)
    return question, answer


def _listed_states(answer: str) -> dict[str, str]:
    """``Results: liver: yes, spleen: no.`` as a dict; empty when the answer has another form."""
    if not answer.startswith("Results:") or PHRASE_END in answer:
        return {}
    pairs = [pair.rpartition(":") for pair in answer.removeprefix("Results:").rstrip(". ").split(",")]
    states = {name.strip(): state.strip() for name, _, state in pairs}
    return (
        states if all(name and state in ("yes", "no", "uncertain") for name, state in states.items()) else {}
    )


def _relisted(
    states: Mapping[str, str], *, modality: str | None, generator: np.random.Generator
) -> tuple[str, str]:
    """The same statements in another order and with other synonyms."""
    taxonomy = Taxonomy.load()
    names = [str(name) for name in generator.permutation(list(states))]
    terms = {name: taxonomy.sample_term(name, generator) if name in taxonomy else name for name in names}
    form = "uncertain_instruction" if "uncertain" in states.values() else "presence_instruction"
    question = _presence_question(list(terms.values()), generator, modality=modality, form=form)
    return question, f"Results:{','.join(f' {terms[name]}: {states[name]}' for name in names)}."


def _conversation(
    turns: Sequence[tuple[str, str]], phrases: list[PhraseTarget], *, grounding: bool
) -> Conversation:
    if not turns:
        raise VividMedError(
            "it has neither targets nor a modality to ask for; fill 'targets', 'absent' or 'modality'"
        )
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return Conversation(messages=messages, phrases=phrases, grounding=grounding)
