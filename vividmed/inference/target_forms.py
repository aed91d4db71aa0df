"""The form in which a phrase was trained, found by the targets that it names."""

from collections.abc import Mapping, Sequence
from functools import cache

from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.models.phrases.forms import PhraseForm, find_form

_SIDES = ("left ", "right ")


class TargetForms:
    """From a phrase to the form of its target in training, also where the phrase uses a synonym.

    Args:
        recorded: form of each target by its name, ``target_forms`` of the configuration.
    """

    def __init__(self, recorded: Mapping[str, PhraseForm] | None):
        self.recorded = dict(recorded or {})
        # A side that was not trained by itself is shown as the other side, or the structure without a side, was.
        self._sideless = {_without_side(name): form for name, form in self.recorded.items()}

    def __call__(self, phrase: str) -> PhraseForm | None:
        if not self.recorded:
            return None
        for name in named_targets(phrase):
            if form := self.recorded.get(name) or self._sideless.get(_without_side(name)):
                return form
        return find_form(self.recorded, phrase)

    def check(self, targets: Sequence[str]) -> None:
        """Check that each target names something that the taxonomy or the training knows.

        Raises:
            VividMedError: one does not; the message has the nearest names.
        """
        taxonomy = tagger().taxonomy
        for target in targets:
            if named_targets(target) or find_form(self.recorded, target) or target in taxonomy:
                continue
            near = ", ".join(taxonomy.nearest(target))
            advice = f"did you mean {near}?" if near else "name a structure or finding."
            raise VividMedError(
                f"target {target!r} is unknown; {advice} Task ground takes any phrase marked <p>...</p>"
            )


@cache
def tagger() -> Tagger:
    """The rule tagger with the package's taxonomy, made once."""
    return Tagger(Taxonomy.load())


def named_targets(phrase: str) -> list[str]:
    """Targets that a phrase names: findings before the structures that they are in, the head of the phrase first."""
    taxonomy = tagger().taxonomy
    names = [mention.target for mention in reversed(tagger()(phrase))]
    return sorted(names, key=lambda name: taxonomy[name].category != "anomaly")


def _without_side(name: str) -> str:
    for side in _SIDES:
        name = name.removeprefix(side)
    return name
