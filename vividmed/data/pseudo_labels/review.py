"""Step ``review``: decisions of readers as CSV, merged back into the studies.

An *item* is a phrase, or a target with its places in all images. Readers accept it, reject it, or edit it: give it another
target, or choose other words of the report for a phrase.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vividmed.data.pseudo_labels.steps import Step
from vividmed.data.pseudo_labels.study import Place, Reject, Study, TaggedPhrase, digest
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

Decision = Literal["accept", "reject", "edit"]
DECISIONS: tuple[Decision, ...] = ("accept", "reject", "edit")
COLUMNS = ("id", "item", "text", "target", "decision", "new_text", "new_target", "reader", "comment")


@dataclass(frozen=True)
class Item:
    """Something that a reader decides on.

    Attributes:
        name: ``phrase N``, or ``place N``; unique in the study.
        text: words of the phrase, or what the place shows.
        target: canonical name.
        reasons: why it needs a decision; empty if all checks agreed.
        phrase: index of the phrase; None for a place.
        places: indices of the places.
    """

    name: str
    text: str
    target: str
    reasons: tuple[str, ...]
    phrase: int | None
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A line of a table of decisions."""

    id: str
    item: str
    text: str
    target: str
    decision: Decision
    new_text: str
    new_target: str
    reader: str
    comment: str
    where: str = ""


def items_of(study: Study, *, everything: bool = False) -> list[Item]:
    """Items of a study that need a decision.

    Args:
        study: after the step ``localize``.
        everything: also list the items that all checks agreed on.
    """
    items = []
    for number, phrase in enumerate(study.phrases):
        if phrase.verdict == "review" or everything:
            items.append(Item(f"phrase {number + 1}", phrase.text, phrase.target, phrase.reasons, number))
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, place in enumerate(study.places):
        groups[place.target, place.side].append(index)
    for number, ((target, side), indices) in enumerate(groups.items(), start=1):
        places = [study.places[index] for index in indices]
        if everything or any(place.verdict == "review" for place in places):
            reasons = tuple(dict.fromkeys(reason for place in places for reason in place.reasons))
            title = f"{side} {target}".strip()
            items.append(Item(f"place {number}", title, target, reasons, None, tuple(indices)))
    return items


def read_decisions(path: Path) -> list[Judgement]:
    """Read a table of decisions.

    Raises:
        VividMedError: it is not a table of decisions, or a line is wrong; the message names the line.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VividMedError(f"{path}: cannot be read as CSV ({error}); save it as UTF-8 text") from error
    if absent := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise VividMedError(f"{path}: lacks the column {absent[0]!r}; the columns are {', '.join(COLUMNS)}")
    found = []
    for number, line in enumerate(lines, start=2):
        where = f"{path}: line {number}"
        missing = [name for name in COLUMNS if line.get(name) is None]
        if missing or None in line:
            problem = f"lacks a cell for {missing[0]!r}" if missing else "has more cells than columns"
            raise VividMedError(f"{where}: {problem}; the columns are {', '.join(COLUMNS)}")
        if not line["decision"].strip():
            continue
        decision = line["decision"].strip().lower()
        if decision not in DECISIONS:
            raise VividMedError(f"{where}: decision {decision!r} is unknown; use {', '.join(DECISIONS)}")
        values = {name: line[name].strip() for name in COLUMNS} | {"decision": decision}
        if decision == "edit" and not (values["new_text"] or values["new_target"]):
            raise VividMedError(f"{where}: an edit needs a new_text or a new_target")
        if values["new_target"] and values["new_target"] not in Taxonomy.load():
            raise VividMedError(
                f"{where}: new_target {values['new_target']!r} is not in the taxonomy; "
                f"nearest: {', '.join(Taxonomy.load().nearest(values['new_target'])) or 'none'}"
            )
        found.append(Judgement(**values, where=where))  # type: ignore[arg-type]
    return found


class Merging(Step):
    """Merges decisions into the studies.

    Where readers of one item disagree, it stays for review, and the disagreement is listed.

    Args:
        judgements: decisions, of one or more readers.
    """

    name = "review"
    version = 1
    batch_size = 32

    def __init__(self, judgements: Iterable[Judgement]) -> None:
        self.by_study: dict[str, dict[str, list[Judgement]]] = defaultdict(lambda: defaultdict(list))
        for each in judgements:
            of_item = self.by_study[each.id][each.item]
            # The last decision of a reader counts.
            of_item[:] = [other for other in of_item if other.reader != each.reader] + [each]
        self.by_study = {key: dict(items) for key, items in self.by_study.items()}

    @property
    def settings(self) -> dict[str, Any]:
        return {"decisions": sum(len(items) for items in self.by_study.values())}

    def fingerprints(self, studies: Sequence[Study]) -> list[str]:
        return [self._digest(self.by_study.get(study.id, {})) for study in studies]

    def run(self, studies: Sequence[Study]) -> list[Study]:
        return [self._merge(study) for study in studies]

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        counts = Counter[str]()
        for study in studies:
            counts.update(f"phrases {phrase.verdict}" for phrase in study.phrases)
            counts.update(f"places {place.verdict}" for place in study.places)
        return dict(sorted(counts.items()))

    def _digest(self, items: Mapping[str, Sequence[Judgement]]) -> str:
        lines = [
            (j.item, j.decision, j.new_text, j.new_target, j.reader) for of in items.values() for j in of
        ]
        return digest(sorted(lines)) if lines else ""

    def _merge(self, study: Study) -> Study:
        decided = self.by_study.get(study.id, {})
        items = {item.name: item for item in items_of(study, everything=True)}
        rejects: list[Reject] = []
        for name, judgements in decided.items():
            first = judgements[0]
            item = items.get(name)
            if item is None or (item.text, item.target) != (first.text, first.target):
                raise VividMedError(
                    f"{first.where}: {first.id} has no {name} {first.text!r} with the target {first.target!r}; decide on the "
                    "pages of this run"
                )
            outcomes = {(each.decision, each.new_text, each.new_target) for each in judgements}
            if len(outcomes) > 1:
                rejects.append(Reject(self.name, "readers disagree", f"{name}: {item.text}"))
                study = _marked(study, item, "readers disagree")
            else:
                study = _decided(study, item, first)
        return study.rejecting(*rejects)


def agreement(judgements: Iterable[Judgement]) -> list[tuple[str, str, int, float, float]]:
    """Inter-rater figures of each pair of readers.

    Returns:
        Both readers, number of items that both decided on, share of equal decisions, and Cohen's kappa of the decisions
        (NaN where it is not defined because both readers decided on everything in one way).
    """
    from sklearn.metrics import cohen_kappa_score

    by_reader: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for each in judgements:
        by_reader[each.reader][each.id, each.item] = each.decision
    readers = sorted(by_reader)
    figures = []
    for place, one in enumerate(readers):
        for other in readers[place + 1 :]:
            shared = sorted(by_reader[one].keys() & by_reader[other].keys())
            if not shared:
                continue
            first, second = ([by_reader[reader][key] for key in shared] for reader in (one, other))
            same = sum(a == b for a, b in zip(first, second, strict=True)) / len(shared)
            defined = len({*first, *second}) > 1
            kappa = float(cohen_kappa_score(first, second)) if defined else float("nan")
            figures.append((one, other, len(shared), same, kappa))
    return figures


def _marked(study: Study, item: Item, reason: str) -> Study:
    """The study with an item left for review."""

    def mark(each: Any) -> Any:
        return replace(each, verdict="review", reasons=(*each.reasons, reason))

    return _changed(study, item, mark, mark)


def _decided(study: Study, item: Item, judgement: Judgement) -> Study:
    if judgement.decision == "reject":
        return _changed(study, item, _rejected, _rejected)
    target = Taxonomy.load()[judgement.new_target].name if judgement.new_target else item.target

    def phrase(each: TaggedPhrase) -> TaggedPhrase:
        return _edited(study, each, judgement, target)

    def place(each: Place) -> Place:
        side = each.side if target == each.target else ""
        return replace(each, target=target, side=side, verdict="accepted")

    changed = _changed(study, item, phrase, place)
    if item.phrase is None and target != item.target:
        # The places of a phrase follow their new name.
        side = study.places[item.places[0]].side
        renamed = tuple(
            replace(each, target=target, side="") if (each.target, each.side) == (item.target, side) else each
            for each in changed.phrases
        )
        changed = replace(changed, phrases=renamed)
    return changed


def _rejected(each: Any) -> Any:
    return replace(each, verdict="rejected")


def _edited(study: Study, phrase: TaggedPhrase, judgement: Judgement, target: str) -> TaggedPhrase:
    words = judgement.new_text or phrase.text
    starts = [i for i in range(len(study.text)) if study.text.startswith(words, i)]
    if not starts:
        raise VividMedError(
            f"{judgement.where}: the report of {judgement.id} does not contain {words!r}; choose words of the report"
        )
    start = min(starts, key=lambda index: abs(index - phrase.start))
    end = start + len(words)
    others = [each for each in study.phrases if each is not phrase and each.start < end and start < each.end]
    if any(each.verdict != "rejected" for each in others):
        raise VividMedError(
            f"{judgement.where}: {words!r} overlaps the phrase {others[0].text!r}; choose words of no other phrase"
        )
    side = phrase.side if target == phrase.target else ""
    return replace(phrase, text=words, start=start, end=end, target=target, side=side, verdict="accepted")


def _changed(study: Study, item: Item, phrase: Any, place: Any) -> Study:
    phrases = tuple(phrase(each) if i == item.phrase else each for i, each in enumerate(study.phrases))
    places = tuple(place(each) if i in item.places else each for i, each in enumerate(study.places))
    return replace(study, phrases=phrases, places=places)
