"""Which phrases of one report are supported by another: the judge that grounded metrics ask."""

import re
from collections.abc import Sequence
from typing import Protocol

from vividmed.data.pseudo_labels.tagging import Mention, Tagger
from vividmed.metrics.vqa import normalize

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_BOTH_SIDES = re.compile(r"\b(?:bilateral(?:ly)?|both)\b", re.IGNORECASE)


class Entailment(Protocol):
    """For a phrase, the numbers of the phrases that support it; empty where it is not entailed."""

    name: str

    def __call__(self, phrase: str, others: Sequence[str]) -> list[int]: ...


class TaxonomyEntailment:
    """Offline judge: same targets of the taxonomy, same polarity, and no contradicting side.

    The presence of a thing entails that of what it is a kind of: *left pleural effusion* entails *pleural effusion*. The
    absence of a thing entails that of its kinds: *no pleural effusion* entails *no left pleural effusion*. A phrase without
    a known target is entailed by a phrase of the same words.

    Args:
        tagger: finds the targets; that of the package's taxonomy by default.
    """

    name = "taxonomy"

    def __init__(self, tagger: Tagger | None = None):
        self.tagger = tagger or Tagger()

    def __call__(self, phrase: str, others: Sequence[str]) -> list[int]:
        return [number for number, other in enumerate(others) if self._entails(other, phrase)]

    def _entails(self, premise: str, hypothesis: str) -> bool:
        wanted, stated = self.tagger(hypothesis), self.tagger(premise)
        if not wanted or not stated:
            return normalize(premise) == normalize(hypothesis)
        sides = stated_sides(premise), stated_sides(hypothesis)
        return all(any(self._supports(one, other, *sides) for one in stated) for other in wanted)

    def _supports(
        self,
        premise: Mention,
        hypothesis: Mention,
        premise_sides: frozenset[str],
        hypothesis_sides: frozenset[str],
    ) -> bool:
        absent = hypothesis.status == "absent"
        if (premise.status == "absent") != absent:
            return False
        narrow, wide = (hypothesis, premise) if absent else (premise, hypothesis)
        narrow_sides, wide_sides = (
            (hypothesis_sides, premise_sides) if absent else (premise_sides, hypothesis_sides)
        )
        if wide_sides and not (
            narrow_sides and (narrow_sides <= wide_sides if absent else wide_sides <= narrow_sides)
        ):
            return False
        return wide.target in (narrow.target, *self.tagger.taxonomy.ancestors(narrow.target))


def stated_sides(text: str) -> frozenset[str]:
    """Sides that a text names: ``left``, ``right``, or both of them."""
    if _BOTH_SIDES.search(text):
        return frozenset({"left", "right"})
    return frozenset(side.lower() for side in _SIDE.findall(text))
