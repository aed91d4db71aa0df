"""Rule tagger: which targets of the taxonomy a report mentions, and whether they are there.

Three steps per sentence. *Terms*: names, synonyms and a short list of radiologists' shorthand are found, the longest
first, and take the side from the words around them. *Scopes*: cues of negation and uncertainty reach forwards or
backwards up to a word that ends their scope, as in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009).
*Status*: a mention in the scope of a negation is absent, in that of an uncertainty uncertain, otherwise present.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vividmed.data.taxonomy import Taxonomy

Status = Literal["present", "absent", "uncertain"]


@dataclass(frozen=True)
class Mention:
    """A target named in a text.

    Attributes:
        text: the phrase, with its adjectives.
        start: first character in the text.
        end: one past the last character.
        target: canonical name in the taxonomy.
        status: whether the text says that it is there.
    """

    text: str
    start: int
    end: int
    target: str
    status: Status


# What radiologists write for targets of the taxonomy, beside its names and synonyms.
_SHORTHAND = {
    "effusion": "pleural effusion",
    "nodule": "lung nodule",
    "nodular density": "lung nodule",
    "nodular opacity": "lung nodule",
    "airspace disease": "pulmonary opacification",
    "air space disease": "pulmonary opacification",
    "air space opacity": "pulmonary opacification",
    "opacification": "pulmonary opacification",
    "ground glass": "ground-glass opacity",
    "ground-glass": "ground-glass opacity",
    "ground glass attenuation": "ground-glass opacity",
    "consolidative opacity": "pulmonary consolidation",
    "consolidative change": "pulmonary consolidation",
    "atelectatic change": "atelectasis",
    "volume loss": "atelectasis",
    "enlarged cardiomediastinal contour": "widened mediastinum",
    "enlargement of the cardiac silhouette": "cardiomegaly",
    "cardiac silhouette is enlarged": "cardiomegaly",
    "heart is enlarged": "cardiomegaly",
    "heart size is enlarged": "cardiomegaly",
    "heart is mildly enlarged": "cardiomegaly",
    "heart is moderately enlarged": "cardiomegaly",
    "heart is markedly enlarged": "cardiomegaly",
    "vascular engorgement": "pulmonary vascular congestion",
    "emphysematous change": "pulmonary emphysema",
    "bullae": "pulmonary emphysema",
    "bulla": "pulmonary emphysema",
    "fibrotic change": "pulmonary fibrosis",
    "fibrosis": "pulmonary fibrosis",
    "bronchiectatic change": "bronchiectasis",
    "metastases": "metastasis",
    "metastatic disease": "metastasis",
    "hepatic metastasis": "liver tumor",
    "hepatic metastases": "liver tumor",
    "hepatic lesion": "liver tumor",
    "liver mass": "liver tumor",
    "mass": "tumor",
    "masses": "tumor",
    "simple cyst": "cyst",
    "cystic change": "cyst",
    "adenopathy": "lymphadenopathy",
    "enlarged nodes": "lymphadenopathy",
    "enlarged lymph nodes": "lymphadenopathy",
    "pleural fluid collection": "pleural effusion",
    "coronary artery calcification": "coronary artery calcification",
    "atherosclerosis": "vascular calcification",
    "atherosclerotic disease": "vascular calcification",
    "infarct": "stroke lesion",
    "infarction": "stroke lesion",
    "intracranial bleed": "intracranial hemorrhage",
    "intraparenchymal hemorrhage": "intracranial hemorrhage",
    "subdural hematoma": "intracranial hemorrhage",
    "subarachnoid hemorrhage": "intracranial hemorrhage",
    "pacemaker": "support device",
    "chest tube": "support device",
    "endotracheal tube": "support device",
    "nasogastric tube": "support device",
    "central venous catheter": "support device",
    "central line": "support device",
    "picc line": "support device",
    "catheter": "support device",
    "stent": "support device",
    "drain": "support device",
    "sternotomy wires": "support device",
    "surgical clips": "support device",
}

# Terms of the taxonomy that mean something else in running text.
_NOT_TERMS = frozenset(
    {"pe", "tb", "lens", "lip", "fat", "muscle", "skin", "cheek", "other diseases", "drain"}
)

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
_SIDE = re.compile(r"\b(left|right)(?:-sided)?\b", re.IGNORECASE)
_SIDE_AFTER = re.compile(r"\s+(?:in|of|at|within)\s+(?:the\s+)?(left|right)\b", re.IGNORECASE)

_NEGATED_BEFORE = (
    r"no(?!\s+(?:significant\s+|interval\s+|appreciable\s+|definite\s+|relevant\s+|substantial\s+)*"
    r"(?:change|increase|decrease|growth|progression|difference|improvement|longer\s+only)\b)",
    r"not\s+(?:have|show|demonstrate|contain|reveal|see|identify|visuali[sz]e)",
    r"(?:there\s+(?:is|are)\s+)?not\s+(?:a|an|any)",
    r"without(?!\s+(?:change|contrast))",
    r"absence\s+of",
    r"absent",
    r"lacks?",
    r"(?:negative|free)\s+(?:for|of)",
    r"clear\s+of",
    r"den(?:y|ies)",
    r"neither",
    r"nor",
    r"never",
    r"(?:resolution|removal)\s+of",
    r"resolved",
    r"(?:has|have)\s+no",
    r"fails?\s+to\s+(?:show|reveal|demonstrate)",
    r"rul(?:es?|ed|ing)\s+out",
    r"exclud(?:es?|ed|ing)",
)
_NEGATED_AFTER = (
    r"(?:is|are|was|were)\s+(?:not|no\s+longer)\s+(?:\w+ly\s+)?(?:seen|identified|present|visuali[sz]ed|evident|noted|"
    r"demonstrated|detected|found|appreciated|visible|apparent|observed)",
    r"(?:is|are|was|were)\s+absent",
    r"(?:has|have)\s+(?:\w+ly\s+)?(?:resolved|cleared|disappeared)",
    r"(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:resolved|ruled\s+out|excluded)",
    r"(?:not|no\s+longer)\s+(?:seen|identified|present|visuali[sz]ed|visible|evident|noted|detected|found)",
    r"cannot\s+be\s+(?:seen|identified|detected|found)",
)
_UNCERTAIN_BEFORE = (
    r"possib(?:le|ly)",
    r"probab(?:le|ly)",
    r"potential(?:ly)?",
    r"likely",
    r"suspected",
    r"questionable",
    r"question\s+of",
    r"equivocal",
    r"(?:may|might|could)\s+(?:also\s+)?(?:represent|reflect|be|indicate|suggest|relate|correspond)",
    r"(?:suspicious|concerning|worrisome)\s+for",
    r"(?:concern|suspicion)\s+(?:for|of)",
    r"suggest(?:s|ing|ive|ed)?(?:\s+of)?",
    r"(?:cannot|can\s+not|can't|not)\s+(?:be\s+)?(?:entirely\s+|completely\s+)?(?:rule\s+out|exclude)",
    r"consistent\s+with\s+either",
    r"rule\s+out",
    r"differential\s+(?:diagnosis\s+)?(?:includes?|of)",
    r"presumed",
    r"appears?\s+to\s+be",
)
_UNCERTAIN_AFTER = (
    r"(?:is|are|was|were|remains?)\s+(?:\w+ly\s+)?(?:possible|questionable|suspected|likely|considered|equivocal)",
    r"(?:cannot|can\s+not|can't|could\s+not|is\s+not|are\s+not|not)\s+(?:be\s+)?(?:\w+ly\s+)?(?:excluded|ruled\s+out)",
    r"(?:may|might|could)\s+be\s+(?:present|considered)",
    r"should\s+be\s+considered",
)
_UNCERTAIN_BOTH_WAYS = (r"versus", r"vs")
_ENDS = (
    r"but",
    r"however",
    r"although",
    r"though",
    r"except(?:\s+for)?",
    r"aside\s+from",
    r"apart\s+from",
    r"other\s+than",
    r"yet",
    r"nevertheless",
    r"which",
    r"because",
    r"due\s+to",
    r"secondary\s+to",
    r"(?:there|this|these)\s+(?:is|are|was|were)",
    r"(?:is|are|was|were)\s+(?:noted|seen|present|identified)",
    r"and\s+(?:an?|the|there)",
    r"with(?!out\b)(?!\s+no\b)",
)


def _alternatives(patterns: tuple[str, ...]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


_CUES = re.compile(
    rf"\b(?:(?P<uncertain_both>{_alternatives(_UNCERTAIN_BOTH_WAYS)})"
    rf"|(?P<uncertain_after>{_alternatives(_UNCERTAIN_AFTER)})|(?P<absent_after>{_alternatives(_NEGATED_AFTER)})"
    rf"|(?P<uncertain_before>{_alternatives(_UNCERTAIN_BEFORE)})|(?P<absent_before>{_alternatives(_NEGATED_BEFORE)})"
    rf"|(?P<end>{_alternatives(_ENDS)}))\b|(?P<stop>[;:])",
    re.IGNORECASE,
)
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
        shorthand = {_key(term): name for term, name in _SHORTHAND.items() if name in self.taxonomy}
        self._targets = {
            form: name
            for term, name in {**shorthand, **terms}.items()
            if term not in _NOT_TERMS
            for form in (*_plurals(term), term)
        }
        self._longest: dict[str, int] = {}
        for term in self._targets:
            first, *rest = _WORD.findall(term)
            self._longest[first] = max(self._longest.get(first, 0), 1 + len(rest))

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

    def _tag_sentence(self, text: str, first: int, last: int) -> Iterator[Mention]:
        sentence = text[first:last]
        scopes: _Scopes | None = None
        for head, end, target in self._terms(sentence):
            scopes = scopes or _Scopes(sentence)
            window = max(0, head - _LEADING_REACH)
            lead = _LEADING.search(sentence[window:head])
            start = window + lead.start() if lead else head
            target = self._with_side(target, sentence[start:end], sentence[end : end + _LEADING_REACH])
            yield Mention(sentence[start:end], first + start, first + end, target, scopes.status(head, end))

    def _terms(self, sentence: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and target of each term, the longest at every word."""
        words = list(_WORD.finditer(sentence))
        place = 0
        while place < len(words):
            length = min(self._longest.get(words[place].group().lower(), 0), len(words) - place)
            while length:
                term = " ".join(word.group().lower() for word in words[place : place + length])
                if term in self._targets:
                    yield words[place].start(), words[place + length - 1].end(), self._targets[term]
                    break
                length -= 1
            place += max(1, length)

    def _with_side(self, target: str, phrase: str, after: str) -> str:
        """The target of the side that stands in the phrase or right behind it, where the taxonomy has one."""
        side = _SIDE.search(phrase) or _SIDE_AFTER.match(after)
        if side is None:
            return target
        sided = f"{side.group(1).lower()} {target}"
        return self.taxonomy[sided].name if sided in self.taxonomy else target


class _Scopes:
    """Cues of one sentence, and the status that they give to what stands behind or before them."""

    def __init__(self, sentence: str):
        cues = list(_CUES.finditer(sentence))
        self._starts = [cue.start() for cue in cues]
        self._ends = [cue.end() for cue in cues]
        self._forwards = self._sweep(cues, "before")
        self._backwards = self._sweep(cues[::-1], "after")[::-1]

    @staticmethod
    def _sweep(cues: list[re.Match[str]], direction: str) -> list[Status]:
        """Status behind each cue, in the order given; the word that ends a scope makes it ``present`` again."""
        states: list[Status] = []
        state: Status = "present"
        for cue in cues:
            name = cue.lastgroup or ""
            if name in ("end", "stop"):
                state = "present"
            elif name == f"absent_{direction}":
                state = "absent"
            elif name in (f"uncertain_{direction}", "uncertain_both") and state == "present":
                # "no suspicious nodule": a negation further away wins over the doubt beside the mention.
                state = "uncertain"
            states.append(state)
        return states

    def status(self, start: int, end: int) -> Status:
        """Status of a mention at these characters; cues inside it do not count."""
        earlier, later = bisect_right(self._ends, start), bisect_left(self._starts, end)
        before = self._forwards[earlier - 1] if earlier else "present"
        after = self._backwards[later] if later < len(self._backwards) else "present"
        if after == "uncertain":
            return "uncertain"
        if "absent" in (before, after):
            return "absent"
        return before


def _plurals(term: str) -> tuple[str, ...]:
    if term.endswith(("is", "um", "a")):
        return (term[:-2] + "es",) if term.endswith("is") else ()
    if term.endswith("y") and term[-2:-1] not in "aeiou":
        return (term[:-1] + "ies",)
    return (term + "es",) if term.endswith(("s", "x", "ch", "sh")) else (term + "s",)


def _key(term: str) -> str:
    return " ".join(_WORD.findall(term.lower()))
