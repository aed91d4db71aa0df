"""Rule tagger: which targets of the taxonomy a report mentions, and whether they are there.

Three steps per sentence. *Terms*: names, synonyms and a short list of radiologists' shorthand are found, the longest
first, and take the side from the words around them. *Scopes*: cues of negation and uncertainty reach forwards or
backwards up to a word that ends their scope, as in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009).
*Status*: a mention in the scope of a negation is absent, in that of an uncertainty uncertain, in that of a limitation
(*evaluation of X is limited*) not assessable, otherwise present.
"""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from vividmed.data.pseudo_labels.cues import CUES, DENIED, PART_OF_STRUCTURE, PRESUPPOSED
from vividmed.data.pseudo_labels.predicates import DIGEST_SOURCE, NODES, Stated, stated_findings
from vividmed.data.pseudo_labels.scopes import Scopes, Status
from vividmed.data.pseudo_labels.shorthand import (
    ACRONYMS,
    HEAD,
    NODULE_ELSEWHERE,
    NODULE_OF_OTHER,
    NOT_TERMS,
    OTHER_MEANINGS,
    PLAIN_HEMORRHAGE,
    SHORTHAND,
)
from vividmed.data.taxonomy import Taxonomy

RULES_VERSION = 6
"""Raised whenever the code of the rules reads a text otherwise; their tables are compared by content."""


@dataclass(frozen=True)
class Mention:
    """A target named in a text.

    Attributes:
        text: the phrase, with its adjectives.
        start: first character in the text.
        end: one past the last character.
        target: canonical name in the taxonomy.
        status: whether the text says that it is there.
        side: side of the body that the words name, if the target has none: ``left``, ``right`` or ``""``.
    """

    text: str
    start: int
    end: int
    target: str
    status: Status
    side: str = ""


_ADJECTIVES = (
    "small|large|tiny|big|mild|mildly|minimal|moderate|moderately|severe|severely|marked|subtle|trace|extensive|diffuse|"
    "focal|multifocal|patchy|bilateral|left|right|unilateral|upper|lower|middle|lobar|basal|basilar|bibasilar|apical|"
    "subpleural|peripheral|central|segmental|subsegmental|acute|chronic|multiple|several|few|solitary|single|scattered|"
    "calcified|noncalcified|non-calcified|spiculated|partially|loculated|layering|displaced|nondisplaced|simple|complex|"
    "mediastinal|hilar|axillary|retroperitoneal|hepatic|renal|pulmonary|lung|pleural|left-sided|right-sided|dense|round|"
    "rounded|hypodense|hyperdense|enhancing|cortical|dependent|linear|streaky|plate-like|confluent|new|old|healed|"
    "suspicious|ill-defined|well-defined|prominent|enlarged|solid|subsolid|cavitary|cavitating|consolidative"
)
_LEADING = re.compile(
    rf"(?:(?:(?:{_ADJECTIVES})|\d+(?:\.\d+)?\s?(?:mm|cm))(?:,?\s+(?:and\s+)?|-))+$", re.IGNORECASE
)
_LEADING_REACH = 80
_ADJECTIVE_WORDS = frozenset(word.rpartition("-")[2] for word in _ADJECTIVES.split("|")) | {"and"}
_LAST_WORD = re.compile(r"(\w+)(?:,?\s+|-)$")
_SIDE = re.compile(r"\b(left|right)(?:-sided)?\b", re.IGNORECASE)
_SIDE_AFTER = re.compile(
    r"\s+(?:in|of|at|within|on)\s+(?:the\s+)?(left|right)\b(?!\s+(?:lateral|decubitus|(?:anterior|posterior)?\s*oblique|view))",
    re.IGNORECASE,
)

_NODULE_ELSEWHERE = re.compile(NODULE_ELSEWHERE, re.IGNORECASE)
# "The pericardium shows no effusion."
_PERICARDIUM = re.compile(
    r"\bpericardi(?:um|al\s+(?:sac|space))(?:\s*:[^;:]*|\s+(?:is|shows?|contains?|has|with|without)\b[^,;:]*)$",
    re.IGNORECASE,
)
_NODULE_OF_OTHER = re.compile(NODULE_OF_OTHER, re.IGNORECASE)
_HEAD = re.compile(HEAD, re.IGNORECASE)
# "The pleura is smooth, without calcified plaques."
_PLEURA = re.compile(r"\bpleura(?:l\s+surfaces?)?\b[^.;:]*$", re.IGNORECASE)
_PLAIN_PLAQUE = re.compile(r"calcifi(?:ed|c)\s+plaques?", re.IGNORECASE)
_PLAIN_NODULE = ("nodule", "nodules")
_PLAIN_EFFUSION = ("effusion", "effusions")
_LIST = r"((?:[a-z-]+,\s+){0,4}[a-z-]+),?\s+(?:and|or|nor|and/or)\s+"
_SHARED = re.compile(rf"{_LIST}$", re.IGNORECASE)
_SHARED_AFTER = re.compile(r"\s+(?:and|or|nor|and/or)\s+([a-z-]+)", re.IGNORECASE)
_SHARED_BY_OTHER = re.compile(rf"{_LIST}[a-z-]+\s+$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:[-/'][^\W_]+)*")
# A number with a decimal point is no end of a sentence, and "Nodule? None." is one.
_SENTENCE = re.compile(
    r"[^.!?\n]+(?:(?:\.(?=\d)|\?(?=\s*(?:none|no|not|nil|absent|negative)\b))[^.!?\n]*)*[.!?]*", re.IGNORECASE
)


class Tagger:
    """Finds mentions of targets.

    Args:
        taxonomy: the targets; the package's by default.
    """

    def __init__(self, taxonomy: Taxonomy | None = None):
        self.taxonomy = taxonomy or Taxonomy.load()
        terms = {_key(term): target.name for target in self.taxonomy for term in target.terms}
        shorthand = {_key(term): name for term, name in SHORTHAND.items() if name in self.taxonomy}
        self._targets = {
            form: name
            for term, name in {**shorthand, **terms}.items()
            if term not in NOT_TERMS
            for form in (*_plurals(term), term)
        }
        self._targets |= dict.fromkeys(OTHER_MEANINGS, "")
        self._longest: dict[str, int] = {}
        for term in self._targets:
            first, *rest = _WORD.findall(term)
            self._longest[first] = max(self._longest.get(first, 0), 1 + len(rest))

    @cached_property
    def digest(self) -> str:
        """Short digest of everything that decides on what is read: terms, targets, cues and the version of the rules."""
        cues = [each.pattern for each in (CUES, DENIED, PART_OF_STRUCTURE, PRESUPPOSED)]
        content = [RULES_VERSION, cues, DIGEST_SOURCE, _LEADING.pattern, sorted(self._targets.items())]
        categories = [(target.name, target.category, target.groundable) for target in self.taxonomy]
        return hashlib.sha256(repr((content, categories)).encode()).hexdigest()[:12]

    def __call__(self, text: str) -> list[Mention]:
        """Mentions in the order of the text; a target that is mentioned twice is listed twice."""
        return [
            mention
            for match in _SENTENCE.finditer(text)
            for mention in self._tag_sentence(text, *match.span())
        ]

    def findings(self, text: str, *, uncertain_is_present: bool = True) -> set[str]:
        """Anomalies that a text says are there.

        Args:
            text: a report.
            uncertain_is_present: count uncertain ones.
        """
        wanted = {"present", "uncertain"} if uncertain_is_present else {"present"}
        return {
            mention.target
            for mention in self(text)
            if mention.status in wanted and self.taxonomy[mention.target].category == "anomaly"
        }

    def status_of(self, text: str, start: int, end: int) -> Status:
        """Status that the words around a span give it, whether or not it names a target."""
        for match in _SENTENCE.finditer(text):
            if match.start() <= start < match.end():
                return Scopes(match.group()).status(start - match.start(), end - match.start())
        return "present"

    def _tag_sentence(self, text: str, first: int, last: int) -> Iterator[Mention]:
        sentence = text[first:last]
        terms = list(self._terms(sentence))
        stated = stated_findings(sentence)
        if not terms and not stated:
            return
        scopes = Scopes(sentence)
        # What is denied about a structure does not deny the structure: the heart of "the heart is not enlarged" is there.
        stated = [
            replace(each, start=each.focus)
            if each.focus > each.start and each.target not in NODES and _is_absent(each, scopes)
            else each
            for each in stated
            if each.target in self.taxonomy
        ]
        found = _together(stated, _together(list(self._shared_words(sentence, terms)), terms))
        previous, side_before = 0, ""
        for each in found:
            target, head, end = each.target, each.start, each.end
            if not target or head < previous:
                continue
            start = head - _leading_length(sentence, head)
            if start < previous:
                start = head
            after = sentence[end : end + _LEADING_REACH]
            if "nodule" in target and _is_elsewhere(sentence, head, end):
                continue
            if sentence[head:end].lower() in PLAIN_HEMORRHAGE and not _HEAD.search(sentence):
                continue
            before = sentence[max(0, start - 2 * _LEADING_REACH) : start]
            if _PLAIN_PLAQUE.fullmatch(sentence[head:end]) and _PLEURA.search(before):
                continue
            plain = sentence[head:end].lower() in _PLAIN_EFFUSION
            if plain and "pericardial effusion" in self.taxonomy and _PERICARDIUM.search(before):
                target = "pericardial effusion"
            target, side = self._with_side(target, sentence[start:end], after)
            if not side and sentence[previous:start].isspace() and self.taxonomy[target].laterality is None:
                side = side_before  # the consolidation of "left lower lobe consolidation"
            status: Status = "absent"
            if not each.denied:
                status = scopes.status(
                    each.focus,
                    end,
                    phrase_start=start if each.focus == head else None,
                    structure=self.taxonomy[target].category != "anomaly",
                )
            yield Mention(sentence[start:end], first + start, first + end, target, status, side)
            previous = end
            side_before = next((word for word in ("left", "right") if word in target.split()), side)

    def _shared_words(self, sentence: str, terms: list[Stated]) -> Iterator[Stated]:
        """Findings that share a word with another: *pericardial or pleural effusion*, *mediastinal widening or shift*."""
        for term in terms:
            words = sentence[term.start : term.end].split()
            offset = max(0, term.start - _LEADING_REACH)
            before = sentence[offset : term.start]
            # "Neither pelvic nor femoral fracture": one of the two may be a word that we do not know.
            if match := (_SHARED if len(words) > 1 else _SHARED_BY_OTHER).search(before):
                for word in reversed(list(_WORD.finditer(before, match.start(1), match.end(1)))):
                    target = self._targets.get(f"{word.group()} {words[-1]}".lower())
                    if not target:
                        break
                    start = offset + word.start()
                    yield Stated(start, start, offset + word.end(), target)
            if len(words) > 1 and (match := _SHARED_AFTER.match(sentence, term.end)):
                target = self._targets.get(f"{words[0]} {match[1]}".lower())
                if target and match[1].lower() not in self._targets:
                    yield Stated(match.start(1), match.start(1), match.end(1), target)

    def _terms(self, sentence: str) -> Iterator[Stated]:
        """The longest term at every word; the target is empty for one that means something else.

        A term that begins one word later wins if it ends later: the fracture in *right rib fracture*, not the rib.
        """
        words = list(_WORD.finditer(sentence))
        place = 0
        while place < len(words):
            length = self._longest_at(sentence, words, place)
            if length > 1 and self._longest_at(sentence, words, place + 1) >= length:
                place += 1
                continue
            if length:
                start, end = words[place].start(), words[place + length - 1].end()
                term = _joined(words[place : place + length])
                if term not in ACRONYMS or sentence[start:end].isupper():
                    yield Stated(start, start, end, self._targets[term])
            place += max(1, length)

    def _longest_at(self, sentence: str, words: list[re.Match[str]], place: int) -> int:
        """Number of words of the longest term that begins at a word; 0 if none does."""
        if place >= len(words):
            return 0
        length = min(self._longest.get(words[place].group().lower(), 0), len(words) - place)
        # Words of one term have nothing but space between them.
        for number, (one, other) in enumerate(pairwise(words[place : place + length]), 1):
            if not sentence[one.end() : other.start()].isspace():
                length = number
                break
        while length and _joined(words[place : place + length]) not in self._targets:
            length -= 1
        return length

    def _with_side(self, target: str, phrase: str, after: str) -> tuple[str, str]:
        """The target of the side that stands in the phrase or right behind it, where the taxonomy has one, else the side."""
        match = _SIDE.search(phrase) or _SIDE_AFTER.match(after)
        if match is None or self.taxonomy[target].laterality is not None:
            return target, ""
        side = match.group(1).lower()
        sided = f"{side} {target}"
        return (self.taxonomy[sided].name, "") if sided in self.taxonomy else (target, side)


def _is_elsewhere(sentence: str, start: int, end: int) -> bool:
    """Whether a nodule lies outside the lungs."""
    if _NODULE_ELSEWHERE.match(sentence, end):
        return True
    before = sentence[max(0, start - 2 * _LEADING_REACH) : start]
    return sentence[start:end].lower() in _PLAIN_NODULE and _NODULE_OF_OTHER.search(before) is not None


def _is_absent(stated: Stated, scopes: Scopes) -> bool:
    return stated.denied or scopes.status(stated.focus, stated.end) == "absent"


def _together(first: list[Stated], rest: list[Stated]) -> list[Stated]:
    """Both lists in the order of the sentence, without what overlaps with something of the first one."""
    first = sorted(first, key=lambda each: each.start)
    ends = [each.end for each in first]
    starts = [each.start for each in first]
    # What overlaps with nothing has as many starts before its end as ends before its start.
    free = [each for each in rest if bisect_left(starts, each.end) == bisect_right(ends, each.start)]
    return sorted([*first, *free], key=lambda each: each.start)


def _leading_length(sentence: str, head: int) -> int:
    """Number of characters of the adjectives and sizes before a term."""
    before = sentence[max(0, head - _LEADING_REACH) : head]
    # Most words before a term are no adjective; this look at the last one is much cheaper than the search.
    last = _LAST_WORD.search(before)
    if last is None or not (last[1].lower() in _ADJECTIVE_WORDS or last[1][-1:].lower() in "m0123456789"):
        return 0
    lead = _LEADING.search(before)
    return len(before) - lead.start() if lead else 0


def _joined(words: list[re.Match[str]]) -> str:
    return " ".join(word.group().lower() for word in words)


def _plurals(term: str) -> tuple[str, ...]:
    if term.endswith(("is", "um", "a")):
        return (term[:-2] + "es",) if term.endswith("is") else ()
    if term.endswith("y") and term[-2:-1] not in "aeiou":
        return (term[:-1] + "ies",)
    return (term + "es",) if term.endswith(("s", "x", "ch", "sh")) else (term + "s",)


def _key(term: str) -> str:
    return " ".join(_WORD.findall(term.lower()))
