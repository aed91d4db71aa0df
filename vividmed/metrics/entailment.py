"""Which phrases of one report are supported by another: the judge that grounded metrics ask."""

import re
from collections.abc import Sequence
from typing import Protocol

from vividmed.data.taxonomy import Taxonomy
from vividmed.metrics.vqa import normalize

_NEGATION = re.compile(
    r"\b(?:no|not|without|absent|absence of|negative for|free of|clear of|resolved|ruled out|denies)\b",
    re.IGNORECASE,
)
_SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)
_BOTH_SIDES = re.compile(r"\b(?:bilateral(?:ly)?|both)\b", re.IGNORECASE)


class Entailment(Protocol):
    """For a phrase, the numbers of the phrases that support it; empty where it is not entailed."""

    name: str

    def __call__(self, phrase: str, others: Sequence[str]) -> list[int]: ...


class TaxonomyEntailment:
    """Offline judge: same targets of the taxonomy, same polarity, and no contradicting side.

    A phrase without a known target is entailed by a phrase of the same words. A target entails its parents, so that
    *left pleural effusion* entails *pleural effusion*; the reverse does not hold.

    Args:
        taxonomy: whose names and synonyms are looked for; the package's by default.
    """

    name = "taxonomy"

    def __init__(self, taxonomy: Taxonomy | None = None):
        self.taxonomy = taxonomy or Taxonomy.load()
        terms = sorted(
            ((term.lower(), target.name) for target in self.taxonomy for term in target.terms),
            key=lambda pair: -len(pair[0]),
        )
        self._targets = dict(terms)
        # Longest term first, so that "pleural effusion" is not read as "effusion".
        self._pattern = re.compile(
            r"\b(?:" + "|".join(re.escape(term) for term, _ in terms) + r")(?:s|es)?\b", re.IGNORECASE
        )

    def __call__(self, phrase: str, others: Sequence[str]) -> list[int]:
        return [number for number, other in enumerate(others) if self._entails(other, phrase)]

    def targets(self, text: str) -> set[str]:
        """Canonical names of the targets that a text mentions, the longest terms first."""
        return {self._name(match.group()) for match in self._pattern.finditer(text)}

    def _name(self, term: str) -> str:
        term = term.lower()
        for ending in ("", "s", "es"):
            if term.endswith(ending) and term.removesuffix(ending) in self._targets:
                return self._targets[term.removesuffix(ending)]
        return term

    def _entails(self, premise: str, hypothesis: str) -> bool:
        negated = is_negated(hypothesis)
        if is_negated(premise) != negated:
            return False
        stated, wanted = self.targets(premise), self.targets(hypothesis)
        if not wanted or not stated:
            return normalize(premise) == normalize(hypothesis)
        # The absence of a thing entails that of its kinds and sides; its presence that of what it is a kind of.
        narrow, wide = (wanted, stated) if negated else (stated, wanted)
        narrow_sides, wide_sides = (
            _sides(text) for text in ((hypothesis, premise) if negated else (premise, hypothesis))
        )
        if wide_sides and not (
            narrow_sides and wide_sides >= narrow_sides if negated else wide_sides <= narrow_sides
        ):
            return False
        covered = {name for target in narrow for name in (target, *self.taxonomy.ancestors(target))}
        if negated:
            return all(wide & {target, *self.taxonomy.ancestors(target)} for target in narrow)
        return wide <= covered


def is_negated(text: str) -> bool:
    """Whether a phrase says that something is not there."""
    return _NEGATION.search(text) is not None


def _sides(text: str) -> set[str]:
    sides = {side.lower() for side in _SIDE.findall(text)}
    return {"left", "right"} if _BOTH_SIDES.search(text) else sides
