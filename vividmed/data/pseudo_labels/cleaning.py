"""Step ``clean``: removes from a report what the image cannot show, and keeps the rest as it was written.

A report compares with earlier examinations and tells of technique and history; a model that learns it would make these
up. Rules drop sentences and parts of sentences; a language model may rewrite them. Every change is checked before it
counts (:func:`check_change`): the findings that the rule labeller reads, with their sides, must be the same before and
after, nothing may be added, and not too much may change. What fails stays as it was and is listed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from vividmed.data.pseudo_labels.language_models import Acceptance, LanguageModel
from vividmed.data.pseudo_labels.prompts import CLEANING, Prompt
from vividmed.data.pseudo_labels.steps import Step
from vividmed.data.pseudo_labels.study import Reject, Study
from vividmed.data.pseudo_labels.tagging import Mention, Tagger
from vividmed.data.raw.report_text import (
    ReportText,
    clean_whitespace,
    is_placeholder,
    parse_report,
    split_sentences,
)

LARGEST_CHANGE = 0.6
"""Share of the words that may be removed or replaced."""

_STUDY = r"(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|films?|images?|imaging|CTs?|MRIs?|scans?|x-?rays?|ones?|reports?)"
_DAY = r"(?:\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{2,4})?|_{2,})"
_EARLIER = (
    r"(?:(?:(?:the|a|an|any|most\s+recent|her|his|their)\s+)*"
    r"(?:(?:prior|previous|earlier|old|last|comparison|outside|preceding|baseline)(?:\s+|(?=[,.;)]|$)))+"
    rf"(?:(?:chest|CT|MR|MRI|PET/CT|x-?ray|radiograph\w*)\s+)*{_STUDY}?"
    rf"|(?:the\s+)?(?:\w+\s+)?{_STUDY}\s+(?:of|from|on|dated)\s+(?={_DAY})|yesterday|the\s+day\s+before)"
)
_DATE = rf"(?:\s*(?:(?:of|from|on|dated)\s+)?{_DAY})?"
_DEGREE = r"(?:(?:slight|slightly|mild|mildly|minimal|moderate|marked|significant|some|further|continued|interval|overall)\s+){0,4}"
_MORE = r"(?:increase|decrease|improvement|worsening|progression|development|placement|insertion)"
_MORE_THAN = rf"{_DEGREE}(?:larger|smaller|bigger|more\s+\w+|less\s+\w+|greater)\s+than\s+(?:(?:on|in|at|with)\s+)?{_EARLIER}{_DATE}"
_EXTENT = r"(?:(?:the\s+)?(?:size|extent|number|volume|density|amount|degree|severity)\s+of\s+)?"
_PARTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf",?\s*\(?(?:when\s+|as\s+)?(?:compared|comparing|in\s+comparison)\s+(?:to|with)\s+{_EARLIER}{_DATE}\)?,?",
        rf",?\s*\(?(?:(?:and|but|now)\s+)?{_MORE_THAN}\)?",
        rf",?\s*(?:relative\s+to|as\s+on|as\s+in|since|from)\s+{_EARLIER}{_DATE}",
        r",?\s*(?:\bsince|\bfrom)\s+(?:\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{2,4})?)",
        r",?\s*\(?(?:previously|formerly)\s+(?:measur\w+\s+)?\d+(?:\.\d+)?(?:\s*(?:x|mm|cm)\s*\d*(?:\.\d+)?)*\)?",
        r"\b(?:previously|formerly)\s+(?:seen|noted|described|reported|identified|known|demonstrated)\s+",
        r",?\s*\b(?:as\s+(?:before|previously)(?:\s+(?:seen|noted|described))?|as\s+previously)\b",
        r"\b(?:again|still)\s+(?=(?:seen|noted|demonstrated|identified|present|visible|visualized|is|are|shown)\b)",
        r"(?<=\bis\s)again\s+|(?<=\bare\s)again\s+",
        rf"^\s*(?:there\s+(?:is|are|has\s+been|have\s+been)\s+)?{_DEGREE}{_MORE}\s+(?:in|of)\s+{_EXTENT}(?:the\s+)?(?=\w)",
        r"^\s*(?:unchanged|stable)\s+(?:position|appearance|size|extent)\s+of\s+(?:the\s+)?(?=\w)",
        r"\b(?:stable|unchanged|persistent|new|newly|interval|worsening|worsened|improving|improved|increasing|decreasing|"
        r"enlarging|progressive|residual)\s+(?=[a-z])",
        r",?\s*(?:and|but)?\s*(?:is|are|remains?|appears?|has\s+remained|have\s+remained)\s+(?:essentially\s+|largely\s+|overall\s+)?"
        r"(?:unchanged|stable)(?:\s+in\s+(?:size|appearance|extent|position))?(?=\s*[.;,]?\s*$)",
    )
)
_CHANGE_VERB = re.compile(
    r"\s+(?:has|have|had)\s+(?:(?:slightly|mildly|markedly|significantly|minimally|further|also|partially|substantially|"
    r"nearly|almost)\s+)*"
    r"(?:increased|decreased|enlarged|improved|worsened|progressed|regressed|diminished|grown|developed|changed|not\s+changed|"
    r"not\s+(?:significantly|substantially)\s+changed)(?:\s+in\s+(?:size|extent|number|volume|density|appearance))?(?=\s*[.;,]|$)",
    re.IGNORECASE,
)
_IS_MORE_THAN = re.compile(rf"\s+(?:is|are)\s+(?:now\s+)?{_MORE_THAN}", re.IGNORECASE)
_NOT_OF_THE_IMAGE = re.compile(
    r"^\s*(?:(?:comparison|technique|history|clinical\s+(?:history|information|indication|question)|indication|exam(?:ination)?|"
    r"reason\s+for\s+(?:exam|study)\w*|procedure|contrast|protocol|views?)\s*:"
    r"|(?:\d+[- ]year[- ]old|known\s+history|history\s+of|status\s+post|s/p)\b)",
    re.IGNORECASE,
)
"""Sentences whose negations are not about what the image shows: *History: no known pneumonia.*"""
_WHOLE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\s*(?:comparison\s+(?:is|was)\s+made|compared\s+(?:to|with)\s+[^,]*\.?$)",
        r"\b(?:was|were|is|are)\s+(?:obtained|acquired|performed|administered|injected|reconstructed|scanned)\b",
        r"^\s*(?:single|two|one|frontal|pa|ap|lateral|portable|upright|supine|axial|multidetector|helical|contrast[- ]enhanced|"
        r"non-?contrast|unenhanced)[\w\s,/-]*\b(?:views?|radiographs?|images?|technique|sequences?|slices)\b[\w\s,/-]*\.?$",
        r"^\s*(?:the\s+)?(?:patient|he|she)\s+(?:is|was|has|had|presents?|presented|underwent|complains?|with)\b",
        r"^\s*(?:there\s+(?:is|are|has\s+been|have\s+been)\s+)?(?:no|little|minimal)\s+(?:significant\s+|relevant\s+|appreciable\s+|"
        r"substantial\s+|definite\s+|major\s+|overall\s+)*(?:interval\s+|new\s+)?changes?\b[^;]*$",
        r"^\s*no\s+(?:prior|previous|earlier|comparison)s?\b(?:\s+\w+){0,6}\s*\.?$",
        # Recommendations and communication
        r"\b(?:recommend\w*|advised|advisable|correlat(?:e|ion)\s+(?:with|clinically)|clinical\s+correlation|"
        r"follow-?up\s+(?:\w+\s+){0,4}(?:is|are)\s+suggested)\b",
        r"\b(?:discussed|communicated|conveyed|relayed|notified|paged)\b.{0,120}?\b(?:Drs?|doctor|physician|team|nurse|phone|telephone|page)\b",
        r"^\s*(?:overall\s+)?(?:unchanged|stable)(?:\s+(?:appearance|exam(?:ination)?|study))?\s*\.?$",
        r"\b(?:image\s+quality|positioning|rotation\s+of\s+the\s+patient|patient\s+rotation|motion\s+artifacts?)\b",
    )
)

_FACTS = re.compile(
    r"\d+(?:\.\d+)?|\b(?:left|right|bilateral|both|upper|middle|lower|two|three|four|five|several|multiple|tiny|small|large|"
    r"minimal|mild|mildly|moderate|moderately|severe|severely|marked|markedly|extensive|massive|acute|chronic)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Change:
    """What a check says about a changed text.

    Attributes:
        distance: share of the words that were removed, added or replaced.
        problem: why the change must not count; empty if it may.
    """

    distance: float
    problem: str = ""


def check_change(
    before: str, after: str, *, tagger: Tagger, largest_change: float = LARGEST_CHANGE
) -> Change:
    """Compare a report with what a rule or a model has made of it.

    Args:
        before: the report.
        after: the changed report.
        tagger: rule labeller.
        largest_change: largest share of words that may change.
    """
    if before == after:
        return Change(0.0)
    words, other = before.split(), after.split()
    distance = Levenshtein.normalized_distance(words, other)
    if words and not other:
        return Change(distance, "nothing is left")
    lost, added = _compare(before, after, tagger)
    if lost:
        return Change(distance, f"a finding was lost: {lost}")
    if added:
        return Change(distance, f"a finding was added: {added}")
    if fact := _new_fact(before, after):
        kind = "a number" if fact[0].isdigit() else "a word of side, size or degree"
        return Change(distance, f"{kind} was added or moved: {fact}")
    if distance > largest_change:
        return Change(distance, f"{distance:.0%} of the words changed")
    return Change(distance)


class Cleaning(Step):
    """Cleans reports.

    Args:
        model: language model to rewrite the reports; None for rules.
        prompt: instruction and examples of the model.
        largest_change: largest share of words that may change.
        tagger: rule labeller.
    """

    name = "clean"
    version = 3

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        prompt: Prompt = CLEANING,
        largest_change: float = LARGEST_CHANGE,
        tagger: Tagger | None = None,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.largest_change = largest_change
        self.tagger = tagger or Tagger()
        self.batch_size = model.batch_size if model else 32

    @property
    def settings(self) -> dict[str, Any]:
        model = {"model": self.model.settings, "prompt": self.prompt.digest} if self.model else {}
        return {"rules": self.tagger.digest, "largest_change": self.largest_change, **model}

    def open(self, answers: Path) -> None:
        if self.model:
            self.model.keep_answers(answers)

    def run(self, studies: Sequence[Study]) -> list[Study]:
        results = [self._by_rules(study) for study in studies]
        if self.model is None:
            return results
        asked = [number for number, study in enumerate(studies) if study.text.strip()]
        answers = self.model.ask(
            [self.prompt.messages(studies[number].text) for number in asked],
            [self._acceptance(studies[number].text) for number in asked],
        )
        for number, answer in zip(asked, answers, strict=True):
            notes = [Reject.of(self.name, problem) for problem in answer.failures]
            if answer.text is None:
                results[number] = results[number].rejecting(*notes)
            else:
                text = _as_report(answer.text)
                results[number] = replace(studies[number], text=text).rejecting(*notes)
        return results

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        counts = Counter[str]()
        for study in studies:
            counts["reports"] += bool(study.report)
            counts["changed"] += study.text != study.report
            counts["empty"] += not study.text
            counts["words before"] += len(study.report.split())
            counts["words after"] += len(study.text.split())
        return dict(counts)

    def _by_rules(self, study: Study) -> Study:
        if not study.text.strip():
            return study.rejecting(Reject(self.name, "the report is empty"))
        parts = parse_report(study.text)
        rejects: list[Reject] = []

        def clean(text: str) -> str:
            kept = []
            for sentence in split_sentences(clean_whitespace(text)):
                changed = clean_sentence(sentence, self.tagger)
                if changed != sentence:
                    problem = _sentence_problem(sentence, changed, self.tagger)
                    if problem:
                        rejects.append(Reject.of(self.name, problem, sentence))
                        changed = sentence
                kept.append(changed)
            return " ".join(filter(None, kept))

        if parts is None:
            text = clean(study.text)
        else:
            text = str(ReportText(clean(parts.findings), clean(parts.impression)))
        change = check_change(study.text, text, tagger=self.tagger, largest_change=self.largest_change)
        if change.problem:
            rejects.append(Reject.of(self.name, change.problem, f"distance {change.distance:.2f}"))
            text = study.text
        return study.rejecting(*rejects, text=text)

    def _acceptance(self, before: str) -> Acceptance:
        def accept(answer: str) -> str:
            after = _as_report(answer)
            if (parse_report(before) is None) != (parse_report(after) is None):
                return "the sections changed"
            return check_change(before, after, tagger=self.tagger, largest_change=self.largest_change).problem

        return accept


def clean_sentence(sentence: str, tagger: Tagger) -> str:
    """A sentence without what the image cannot show; empty if nothing is left.

    *The effusion has increased since the prior study* becomes *The effusion is present*, so that what is there stays.
    """
    if _says_nothing(sentence, tagger):
        return ""
    changed = _IS_MORE_THAN.sub(lambda match: _present(match, sentence), sentence)
    for pattern in _PARTS:
        changed = pattern.sub(" " if pattern.pattern.endswith((r"\s+", ")")) else "", changed)
    changed = _CHANGE_VERB.sub(lambda match: _present(match, changed), changed)
    if changed == sentence:
        return sentence
    changed = clean_whitespace(re.sub(r"\s+([.,;])", r"\1", changed)).lstrip(" ,;")
    if is_placeholder(changed) or not re.search(r"\w", changed) or _says_nothing(changed, tagger):
        return ""
    changed = _finish(changed, tagger)
    return changed[:1].upper() + changed[1:] if sentence[:1].isupper() else changed


def _says_nothing(sentence: str, tagger: Tagger) -> bool:
    """Whether a sentence is about technique, history, recommendations or the like, and states no finding of the image."""
    elsewhere = _NOT_OF_THE_IMAGE.search(sentence) is not None
    if not elsewhere and not any(pattern.search(sentence) for pattern in _WHOLE):
        return False
    stated = [mention for mention in tagger(sentence) if _is_finding(mention, tagger)]
    return all(elsewhere and mention.status == "absent" for mention in stated)


def _present(match: re.Match[str], sentence: str) -> str:
    subject = sentence[: match.start()].rsplit(" and ", 1)
    plural = len(subject) > 1 or match.group().split()[0].lower() == "have"
    return " are present" if plural else " is present"


def _finish(sentence: str, tagger: Tagger) -> str:
    """Give a sentence its predicate back: *Mild cardiomegaly.* stays, *Heart size.* says nothing and goes."""
    if re.fullmatch(r"[\w\s/,-]+\.?", sentence) and not re.search(
        r"\b(?:is|are|was|were|has|have|shows?|no|without|with|seen|noted|there)\b", sentence, re.IGNORECASE
    ):
        return sentence if any(_is_finding(mention, tagger) for mention in tagger(sentence)) else ""
    return sentence


def _sentence_problem(before: str, after: str, tagger: Tagger) -> str:
    lost, added = _compare(before, after, tagger)
    if lost:
        return f"a finding was lost: {lost}"
    return f"a finding was added: {added}" if added else ""


def _compare(before: str, after: str, tagger: Tagger) -> tuple[str, str]:
    """A finding that was lost and one that was added, with its status; empty if there is none.

    What the history and the like deny may be left out.
    """
    one, other = _statements(before, tagger), _statements(after, tagger)
    elsewhere = " ".join(filter(_NOT_OF_THE_IMAGE.search, split_sentences(before)))
    denied = {each for each in _statements(elsewhere, tagger) if each[2] == "absent"} if elsewhere else set()
    lost, added = sorted(one - denied - other), sorted(other - one)
    return _name(lost[0]) if lost else "", _name(added[0]) if added else ""


def _statements(text: str, tagger: Tagger) -> set[tuple[str, str, str]]:
    return {(each.target, each.side, each.status) for each in tagger(text) if _is_finding(each, tagger)}


def _is_finding(mention: Mention, tagger: Tagger) -> bool:
    return tagger.taxonomy[mention.target].category == "anomaly"


def _name(statement: tuple[str, str, str]) -> str:
    target, side, status = statement
    return " ".join(filter(None, (side, target))) + ("" if status == "present" else f" ({status})")


def _new_fact(before: str, after: str) -> str:
    """A number, side, size or degree that the changed text says and the text before it does not say there; empty if none.

    What is left of a text says these in the same order, so that no number goes from one finding to another.
    """
    said = (match.group().lower() for match in _FACTS.finditer(before))
    return next((m.group().lower() for m in _FACTS.finditer(after) if m.group().lower() not in said), "")


def _as_report(answer: str) -> str:
    """An answer in the form of a report: one line per section."""
    parts = parse_report(answer)
    return str(parts) if parts else clean_whitespace(answer)
