"""Findings that a report states as what a structure is: *the heart is not enlarged*, *dilatation of the thoracic aorta*.

A term of the taxonomy is a run of words. Here the structure and what is said about it may be apart, and one structure may
have several properties (*the aorta is tortuous and calcified*).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_STATIONS = (
    "mediastinal|hilar|axillary|retroperitoneal|mesenteric|inguinal|iliac|pelvic|abdominal|cervical|supraclavicular|paratracheal|"
    "subcarinal|paraaortic|para-aortic|periportal|thoracic|local|regional|several|multiple|any"
)
_BETWEEN = r"(?:,?\s+(?:(?:and|or|nor|and/or)\s+)?)"
_NODES = rf"(?:(?:{_STATIONS}){_BETWEEN}){{0,6}}(?:lymph\s+)?nodes?"
_PLACES = (
    r"(?:(?:left|right|both|main|central|thoracic|abdominal|ascending|descending|infrarenal|anterior|posterior|lateral|distal|"
    r"proximal|mid|upper|middle|lower|entire|whole|\w+th|first|second|third)(?:,?\s+(?:and|or|to|through)\s+|,?\s+)){0,5}"
)

# Structure -> finding -> adjectives, and nouns that mean the same.
_STATED: dict[str, dict[str, tuple[str, str]]] = {
    r"(?:heart|cardiac\s+(?:silhouette|shadow|contour))(?:\s+size)?|cardiac\s+size": {
        "cardiomegaly": ("enlarged|increased", "enlargement"),
    },
    r"(?:superior\s+)?(?:cardio)?mediastin(?:um|al\s+(?:contours?|silhouette))": {
        "widened mediastinum": ("widened|wide|broadened|enlarged", "widening|broadening"),
        "mediastinal shift": ("shifted|displaced|deviated", "shift|displacement|deviation"),
        "mediastinal lymph node": ("", "lymphadenopathy|adenopathy"),
    },
    r"aorta|aortic\s+arch": {
        "aortic tortuosity": ("tortuous|unfolded|elongated", "tortuosity|unfolding|elongation"),
        "aortic enlargement": (
            "dilated|aneurysmal|enlarged|ectatic|widened",
            "dilatation|dilation|enlargement|aneurysm|ectasia",
        ),
        "vascular calcification": ("calcified|atherosclerotic", "calcifications?"),
    },
    r"coronary\s+(?:arter(?:y|ies)|vessels?)": {
        "coronary artery calcification": ("calcified", "calcifications?"),
    },
    r"pulmonary\s+(?:arter(?:y|ies)|trunk)": {
        "pulmonary artery enlargement": ("enlarged|dilated|ectatic", "enlargement|dilatation|dilation"),
    },
    rf"(?!mediastinal\s+(?:lymph\s+)?nodes?){_NODES}": {"lymphadenopathy": ("enlarged", "enlargement")},
    r"mediastinal\s+(?:lymph\s+)?nodes?": {"mediastinal lymph node": ("enlarged", "enlargement")},
    r"bronch(?:us|i|ioles?)": {"bronchiectasis": ("dilated|ectatic", "dilatation|dilation|ectasia")},
    r"(?:bronchial|airway)\s+walls?": {"peribronchial thickening": ("thickened", "thickening")},
    r"(?:interlobular\s+)?septa": {"interlobular septal thickening": ("thickened", "thickening")},
    r"pleura(?:l\s+surfaces?)?": {"pleural thickening": ("thickened", "thickening")},
    r"lungs?|lobes?|lingula|hemithorax": {
        "pulmonary consolidation": ("consolidated", ""),
        "atelectasis": ("collapsed|atelectatic", "collapse"),
        "pulmonary emphysema": ("emphysematous", ""),
        "pulmonary fibrosis": ("fibrotic", ""),
        "pulmonary opacification": ("opacified", ""),
        "pulmonary cavity": ("", r"cavit(?:y|ies)"),
    },
    r"ribs?": {"rib fracture": ("fractured|broken", "fractures?")},
    r"clavicles?": {"clavicle fracture": ("fractured|broken", "fractures?")},
    r"pelvis|pelvic\s+(?:bones?|ring)": {"pelvic fracture": ("fractured|broken", "fractures?")},
    r"vertebrae?|vertebral\s+bod(?:y|ies)|femur|humerus|radius|ulna|tibia|fibula|sternum|scapula|sacrum|skull|mandible|bones?": {
        "fracture": ("fractured|broken", ""),
    },
    r"spine": {"scoliosis": ("scoliotic", "")},
    r"pleural\s+(?:spaces?|cavit(?:y|ies))": {"pleural effusion": ("", "fluid|effusions?")},
}

NODES = ("lymphadenopathy", "mediastinal lymph node")
"""Findings whose structure is in no image by itself."""

_ADVERB = r"(?:\w+ly|not|no\s+longer|never|neither|none|of\s+(?:which|them)|again|now|still|somewhat|more|less|also|quite|very|too|at\s+most|to\s+be)"
_VERB = (
    r"(?:(?:may|might|could|can|cannot|would)\s+(?:not\s+)?be|(?:has|have)\s+(?:now\s+)?(?:been|become)|"
    r"is|are|was|were|remains?|appears?|seems?|looks?)"
)
# "The silhouette is at the upper limit of normal, not enlarged": what stands between may only lead to a negation.
_ASIDE = r"(?:[^.;:]{0,40}?(?:,|\s(?:and|but|yet))(?=\s+(?:not|neither|nor|none)\b))??"
_MEASURED = r"(?:\s+measur(?:es?|ing)\s+[^,;:]{0,30}?\s+and\b)?"
_GAP = rf"{_MEASURED}(?:,?(?:\s+which)?\s+{_VERB}|,?|\s*:){_ASIDE}(?:\s+{_ADVERB}){{0,4}}\s+"
# "The pleural spaces are free of fluid."
_CONTAINS = r"\s+(?:is|are|contains?|shows?|has|have|with|without|remains?)\b(?:(?!\sand\s)[^.,;:()]|,(?=\s+with)){0,30}?\s"
_JOINED = rf"(?:,?\s+(?P<word>and|or|nor|but|yet)|,)\s+(?:{_ADVERB}\s+){{0,3}}"
_DENIED = re.compile(
    r"\b(?:not|no\s+longer|never|neither|nor|none(?:\s+of\s+(?:which|them))?)\s+(?:(?:is|are|was|were)\s+)?(?:(?!only|merely|solely|simply|necessarily|entirely)\w+ly\s+){0,2}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Stated:
    """A finding that a sentence states about a structure.

    Attributes:
        start: first character of what belongs together, the structure included.
        focus: first character of what is said about the structure; cues of negation before it count.
        end: one past the last character.
        target: canonical name in the taxonomy.
        denied: whether it is denied by the word before it.
    """

    start: int
    focus: int
    end: int
    target: str
    denied: bool = False


@dataclass(frozen=True)
class _Pattern:
    """How one structure is spoken of: *the heart is enlarged*, *enlarged heart*, *enlargement of the heart*."""

    predicate: re.Pattern[str]
    further: re.Pattern[str]
    attribute: re.Pattern[str]
    targets: tuple[str, ...]

    @classmethod
    def of(cls, structure: str, findings: dict[str, tuple[str, str]]) -> "_Pattern":
        def named(kind: int, place: str) -> str:
            words = ((number, words[kind]) for number, words in enumerate(findings.values()))
            return "|".join(f"(?P<{place}{number}>{each})" for number, each in words if each) or "(?!)"

        of = rf"\s+(?:of|in|within|involving|through)\s+(?:the\s+|both\s+|an?\s+)?{_PLACES}(?:{structure})"
        attribute = (
            rf"(?:{named(0, 'before')})\s+{_PLACES}(?:{structure})|(?:{named(1, 'of')}){of}"
            rf"|(?:{structure})\s+(?:{named(1, 'behind')})"
        )
        predicate = rf"(?:{_GAP}(?P<adjective>{named(0, 'is')})|{_CONTAINS}(?P<noun>{named(1, 'has')}))"
        return cls(
            re.compile(rf"\b(?:{structure}){predicate}\b", re.IGNORECASE),
            re.compile(rf"{_JOINED}(?P<adjective>{named(0, 'is')})\b", re.IGNORECASE),
            re.compile(rf"\b(?:{attribute})\b", re.IGNORECASE),
            tuple(findings),
        )

    def find(self, sentence: str) -> Iterator[Stated]:
        for match in self.attribute.finditer(sentence):
            yield Stated(match.start(), match.start(), match.end(), self.target(match))
        for match in self.predicate.finditer(sentence):
            start, focus = match.start(), match.start("adjective")
            if focus < 0:
                yield Stated(start, match.start("noun"), match.end(), self.target(match))
                continue
            denied = _denied(sentence, focus)
            yield Stated(start, focus, match.end(), self.target(match), denied)
            end = match.end()
            while more := self.further.match(sentence, end):
                focus = more.start("adjective")
                denied = _denied(sentence, focus) or (denied and more["word"] in ("or", None))
                yield Stated(focus, focus, more.end(), self.target(more), denied)
                end = more.end()

    def target(self, match: re.Match[str]) -> str:
        """The finding that a match names."""
        name = next(name for name, text in match.groupdict().items() if text and name[-1].isdigit())
        return self.targets[int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))]


def _denied(sentence: str, focus: int) -> bool:
    return _DENIED.search(sentence, max(0, focus - _REACH), focus) is not None


_REACH = 60
_PATTERNS = [_Pattern.of(structure, findings) for structure, findings in _STATED.items()]
_ANY = re.compile(
    "|".join(
        rf"\b(?:{words})\b"
        for findings in _STATED.values()
        for pair in findings.values()
        for words in pair
        if words
    ),
    re.IGNORECASE,
)
DIGEST_SOURCE = [pattern.attribute.pattern + pattern.predicate.pattern for pattern in _PATTERNS]
"""What decides on the result, for digests."""


def stated_findings(sentence: str) -> list[Stated]:
    """Findings stated about structures, in the order of the sentence and without overlap."""
    if not _ANY.search(sentence):
        return []
    found = sorted(
        (stated for pattern in _PATTERNS for stated in pattern.find(sentence)),
        key=lambda stated: (stated.start, -stated.end),
    )
    kept: list[Stated] = []
    for stated in found:
        if not kept or stated.start >= kept[-1].end:
            kept.append(stated)
    return kept
