"""Scopes of the cues in a sentence, and the status that they give to a mention: present, absent, uncertain, not assessable."""

import re
from bisect import bisect_left, bisect_right
from typing import Literal

from vividmed.data.pseudo_labels.cues import CUES, DENIED, PART_OF_STRUCTURE, PRESUPPOSED

Status = Literal["present", "absent", "uncertain", "not assessable"]
# "No fracture is suspected" is a denial and "a fracture is suspected" a doubt, but "no ... cannot be excluded" is always a doubt.
_State = Literal["present", "absent", "uncertain", "not assessable", "weakly uncertain"]
_DOUBTS = ("uncertain", "weakly uncertain")

_AND = re.compile(r"and\b", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|shows?|contains?|measures?|lies?|appears?|remains?|demonstrates?|there)\b",
    re.IGNORECASE,
)
_FRONTED = re.compile(r"\s*(?:in\s+the\s+absence\s+of|without|rather\s+than|instead\s+of)\b", re.IGNORECASE)
_BELONGS = re.compile(
    r"\b(?:and|or|nor|versus|vs)\b|^(?:especially|particularly|such|including|if|in|on|at|of|with|for)\b",
    re.IGNORECASE,
)
_REACH_BACK = 60
_CLAUSE_REACH = 300


class Scopes:
    """Cues of one sentence, and the status that they give to what stands behind or before them.

    Args:
        sentence: the sentence.
    """

    def __init__(self, sentence: str):
        cues = list(CUES.finditer(sentence))
        self._starts = [cue.start() for cue in cues]
        self._ends = [cue.end() for cue in cues]
        self._sentence = sentence
        self._fronted = _FRONTED.match(sentence) is not None
        self._forwards = self._sweep(cues, "before")
        self._backwards = self._sweep(cues[::-1], "after")[::-1]

    def status(
        self, start: int, end: int, *, phrase_start: int | None = None, structure: bool = False
    ) -> Status:
        """Status of a mention.

        Args:
            start: first character of the term; cues inside the term do not count.
            end: one past its last character.
            phrase_start: first character of the phrase with its adjectives.
            structure: the mention is a structure of the body, and not a finding.
        """
        earlier, later = bisect_right(self._ends, start), bisect_left(self._starts, end)
        before = self._forwards[earlier - 1] if earlier else "present"
        after = self._backwards[later] if later < len(self._backwards) else "present"
        first = start if phrase_start is None else phrase_start
        context = self._sentence[max(0, first - _REACH_BACK) : first]
        if DENIED.search(context):
            return "absent"
        if before != "present" and (
            PRESUPPOSED.search(context) or (structure and PART_OF_STRUCTURE.search(context))
        ):
            before = "present"
        if after == "not assessable" or after == "uncertain":
            return after
        if "absent" in (before, after):
            return "absent"
        return "uncertain" if after != "present" or before == "weakly uncertain" else before

    def _sweep(self, cues: list[re.Match[str]], direction: str) -> list[_State]:
        """State behind each cue, in the order given; a word that ends a scope makes it ``present`` again."""
        states: list[_State] = []
        outside: list[_State] = []
        state: _State = "present"
        said: _State = "present"
        since = 0
        for cue in cues:
            name = cue.lastgroup or ""
            if name in ("absent_after", "uncertain_after"):
                said = "absent" if name == "absent_after" else "uncertain"
            if name in ("end", "stop"):
                if not (direction == "after" and self._joins_subjects(cue)):
                    state = "present"
            elif name in ("joined", "new_clause"):
                if (name == "new_clause") if direction == "before" else not self._joins_subjects(cue):
                    state = "present"
            elif name == "likewise":
                state = said if direction == "before" else "present"
            elif name == "end_backwards":
                if direction == "after":
                    state = "present"
            elif name == "after_front" and direction == "before":
                # "Without fever, the consolidation ..." and not "without nodule, mass or effusion".
                if self._fronted:
                    state = "present"
            elif name in ("comma", "clause", "after_front") and direction == "after":
                if state in _DOUBTS and self._separates(cue.end(), since):
                    state = "present"
            elif name in ("end_forwards", "clause", "unchanged", "open", "close"):
                # What is said in parentheses ends with them. Backwards, they comment on the words before them.
                if direction == "before":
                    state = _enclosed(name, state, outside)
            elif name == f"unassessed_{direction}":
                state = "not assessable"
            elif name.startswith(f"absent_{direction}"):
                state = "absent"
            elif name == "uncertain_before" and direction == "after" and state == "uncertain":
                # "Opacity, suspicious for pneumonia versus edema."
                state = "present"
            elif name in (f"uncertain_{direction}", "uncertain_both") and state == "present":
                # "no suspicious nodule": a negation further away wins over the doubt beside the mention.
                state, since = "uncertain", cue.start()
            elif name == f"uncertain_{direction}_weakly" and state == "present":
                state, since = "weakly uncertain", cue.start()
            states.append(state)
        return states

    def _joins_subjects(self, cue: re.Match[str]) -> bool:
        """Whether *and the* joins two subjects of one verb: *the liver and the spleen are not seen*."""
        if not _AND.match(cue.group()):
            return False
        before = self._sentence[max(0, cue.start() - _CLAUSE_REACH) : cue.start()]
        clause = max(before.rfind(mark) for mark in (";", ":", " but "))
        return _VERB.search(before, max(0, clause)) is None

    def _separates(self, comma: int, cue: int) -> bool:
        """Whether a comma stands before another subject: *consolidation, tuberculosis to be excluded*."""
        between = self._sentence[comma:cue].strip() if cue - comma < _CLAUSE_REACH else ""
        return bool(between) and not between.endswith(",") and not _BELONGS.search(between)


def _enclosed(name: str, state: _State, outside: list[_State]) -> _State:
    if name == "open":
        outside.append(state)
        return state
    if name == "close":
        return outside.pop() if outside else state
    return "present"
