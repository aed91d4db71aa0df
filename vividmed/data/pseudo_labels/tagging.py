"""Rule tagger: which targets of the taxonomy a report mentions, and whether they are there.

Three steps per sentence. *Terms*: names, synonyms and a short list of radiologists' shorthand are found, the longest
first, and take the side from the words around them. *Scopes*: cues of negation and uncertainty reach forwards or
backwards up to a word that ends their scope, as in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009).
*Status*: a mention in the scope of a negation is absent, in that of an uncertainty uncertain, in that of a limitation
(*evaluation of X is limited*) not assessable, otherwise present.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from vividmed.data.pseudo_labels.cues import CUES, DENIED, PRESUPPOSED
from vividmed.data.pseudo_labels.scopes import Scopes, Status
from vividmed.data.pseudo_labels.shorthand import NODULE_ELSEWHERE, NOT_TERMS, OTHER_MEANINGS, SHORTHAND
from vividmed.data.taxonomy import Taxonomy

RULES_VERSION = 2
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
    r"\bpericardi(?:um|al\s+(?:sac|space))\s+(?:is|shows?|contains?|has|with|without)\b[^,;:]*$",
    re.IGNORECASE,
)
_PLAIN_EFFUSION = ("effusion", "effusions")
_WORD = re.compile(r"[^\W_]+(?:[-/'][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?\n]+(?:\.(?=\d)[^.!?\n]*)*[.!?]*")


class Tagger:
    """Finds mentions of targets.

    Args:
        taxonomy: the targets; the package's by default.
    """

    def __init__(self, taxonomy: Taxonomy | None = None):
        self.taxonomy = taxonomy or Taxonomy.load()
        terms = {_key(term): target.name for target in self.taxonomy for term in target.terms}
        shorthand = {_key(term): name for term, name in SHORTHAND.items() if name in self.taxonomy}
        shorthand |= dict.fromkeys(OTHER_MEANINGS, "")
        self._targets = {
            form: name
            for term, name in {**shorthand, **terms}.items()
            if term not in NOT_TERMS
            for form in (*_plurals(term), term)
        }
        self._longest: dict[str, int] = {}
        for term in self._targets:
            first, *rest = _WORD.findall(term)
            self._longest[first] = max(self._longest.get(first, 0), 1 + len(rest))

    @cached_property
    def digest(self) -> str:
        """Short digest of everything that decides on what is read: terms, targets, cues and the version of the rules."""
        cues = [each.pattern for each in (CUES, DENIED, PRESUPPOSED)]
        content = [RULES_VERSION, cues, _LEADING.pattern, sorted(self._targets.items())]
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
        scopes: Scopes | None = None
        for head, end, target in self._terms(sentence):
            scopes = scopes or Scopes(sentence)
            start = head - _leading_length(sentence, head)
            after = sentence[end : end + _LEADING_REACH]
            if "nodule" in target and _NODULE_ELSEWHERE.match(after):
                continue
            if sentence[head:end].lower() in _PLAIN_EFFUSION and _PERICARDIUM.search(sentence[:start]):
                target = "pericardial effusion"
            target, side = self._with_side(target, sentence[start:end], after)
            status = scopes.status(head, end, phrase_start=start)
            yield Mention(sentence[start:end], first + start, first + end, target, status, side)

    def _terms(self, sentence: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and target of each term, the longest at every word.

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
                target = self._targets[_joined(words[place : place + length])]
                if target:
                    yield words[place].start(), words[place + length - 1].end(), target
            place += max(1, length)

    def _longest_at(self, sentence: str, words: list[re.Match[str]], place: int) -> int:
        """Number of words of the longest term that begins at a word; 0 if none does."""
        if place >= len(words):
            return 0
        length = min(self._longest.get(words[place].group().lower(), 0), len(words) - place)
        while length and _joined(words[place : place + length]) not in self._targets:
            length -= 1
        # Words of one term have nothing but space between them.
        for one, other in pairwise(words[place : place + length]):
            if not sentence[one.end() : other.start()].isspace():
                return 0
        return length

    def _with_side(self, target: str, phrase: str, after: str) -> tuple[str, str]:
        """The target of the side that stands in the phrase or right behind it, where the taxonomy has one, else the side."""
        match = _SIDE.search(phrase) or _SIDE_AFTER.match(after)
        if match is None or self.taxonomy[target].laterality is not None:
            return target, ""
        side = match.group(1).lower()
        sided = f"{side} {target}"
        return (self.taxonomy[sided].name, "") if sided in self.taxonomy else (target, side)


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
