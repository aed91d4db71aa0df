"""Step ``filter``: phrases that the report calls absent, uncertain or not assessable lose their link.

The rules decide by the status that the tagger gave. A language model may take further links off; it cannot add or move one,
because an answer counts only if its text is unchanged and every link was there before.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vividmed.data.pseudo_labels.language_models import Acceptance, LanguageModel
from vividmed.data.pseudo_labels.prompts import FILTERING, Prompt
from vividmed.data.pseudo_labels.steps import Step
from vividmed.data.pseudo_labels.study import Reject, Study, TaggedPhrase, digest
from vividmed.data.pseudo_labels.tagging_step import read_links
from vividmed.data.taxonomy import Taxonomy


class Filtering(Step):
    """Keeps the phrases whose target is there.

    Args:
        model: language model that looks at the remaining links; None for the rules by themselves.
        prompt: instruction and examples of the model.
        taxonomy: the targets; the package's by default.
    """

    name = "filter"
    version = 1

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        prompt: Prompt = FILTERING,
        taxonomy: Taxonomy | None = None,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.taxonomy = taxonomy or Taxonomy.load()
        self.batch_size = model.batch_size if model else 32

    @property
    def settings(self) -> dict[str, Any]:
        groundable = [target.name for target in self.taxonomy if target.groundable]
        model = {"model": self.model.settings, "prompt": self.prompt.digest} if self.model else {}
        return {"targets": digest(groundable)[:12], **model}

    def open(self, answers: Path) -> None:
        if self.model:
            self.model.keep_answers(answers)

    def run(self, studies: Sequence[Study]) -> list[Study]:
        results = [self._by_rules(study) for study in studies]
        if self.model is None:
            return results
        asked = [number for number, study in enumerate(results) if study.phrases]
        answers = self.model.ask(
            [self.prompt.messages(linked_text(results[number])) for number in asked],
            [_acceptance(results[number]) for number in asked],
        )
        for number, answer in zip(asked, answers, strict=True):
            study = results[number]
            notes = [Reject.of(self.name, problem) for problem in answer.failures]
            kept = study.phrases
            if answer.text is not None:
                left = {(link.start, link.end) for link in read_links(answer.text, study.text) or ()}
                kept = tuple(phrase for phrase in kept if (phrase.start, phrase.end) in left)
                taken = [phrase for phrase in study.phrases if phrase not in kept]
                notes += [Reject(self.name, "unlinked by the model", _describe(phrase)) for phrase in taken]
            results[number] = study.rejecting(*notes, phrases=kept)
        return results

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        counts = Counter[str]()
        for study in studies:
            counts["reports with phrases"] += bool(study.phrases)
            counts["phrases"] += len(study.phrases)
            counts["phrases for review"] += sum(phrase.verdict == "review" for phrase in study.phrases)
        return dict(counts)

    def _by_rules(self, study: Study) -> Study:
        kept, rejects = [], []
        for phrase in study.phrases:
            reason = phrase.status if phrase.status != "present" else ""
            if not reason and not self.taxonomy[phrase.target].groundable:
                reason = "it has no place in an image"
            if reason:
                rejects.append(Reject(self.name, reason, _describe(phrase)))
            else:
                kept.append(phrase)
        return study.rejecting(*rejects, phrases=tuple(kept))


def linked_text(study: Study) -> str:
    """The text with its phrases as links."""
    text, cursor = "", 0
    for phrase in study.phrases:
        text += f"{study.text[cursor : phrase.start]}[{phrase.text}]({phrase.target})"
        cursor = phrase.end
    return text + study.text[cursor:]


def _acceptance(study: Study) -> Acceptance:
    given = {(phrase.start, phrase.end): phrase.target for phrase in study.phrases}

    def accept(answer: str) -> str:
        links = read_links(answer, study.text)
        if links is None:
            return "the text was changed"
        if any(given.get((link.start, link.end)) != link.target for link in links):
            return "a link was added or changed"
        return ""

    return accept


def _describe(phrase: TaggedPhrase) -> str:
    return f"{phrase.text} -> {phrase.target}"
