"""Step ``tag``: phrases of reports to targets, by rules or by a language model that the rules check.

A model writes the report again with links, ``[phrase](target)``. Its answer counts only if the words between the links are
those of the report, and each link only if its target is in the taxonomy. A link whose phrase the rule tagger reads the same
way is *agreed*; any other is left to review, so that an invented link cannot reach a row by itself. What the rules find and
the model left out is kept, too.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vividmed.data.pseudo_labels.language_models import Acceptance, LanguageModel
from vividmed.data.pseudo_labels.prompts import Prompt, tagging_prompt
from vividmed.data.pseudo_labels.steps import Step
from vividmed.data.pseudo_labels.study import Reject, Study, TaggedPhrase
from vividmed.data.pseudo_labels.tagging import Mention, Tagger
from vividmed.data.taxonomy import Taxonomy

LONGEST_PART = 2000
"""Characters of a report that a model tags at once."""

LONGEST_PHRASE = 15
"""Words of a link that counts without review."""

_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\[\]]*)\)")
_BREAK = re.compile(r"\n+|(?<=[.!?;])\s+")
_HEADING = re.compile(r"\s*(?:Findings|Impression):\s*")


@dataclass(frozen=True)
class Part:
    """A part of a report that is tagged by itself: its text and where it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Link:
    """A link of a model's answer: characters of the part, and the target as the model wrote it."""

    start: int
    end: int
    target: str


class Tagging(Step):
    """Tags reports.

    Args:
        model: language model; None for the rules by themselves.
        prompt: instruction and examples of the model.
        tagger: rule tagger.
    """

    name = "tag"
    version = 1

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        prompt: Prompt | None = None,
        tagger: Tagger | None = None,
    ) -> None:
        self.model = model
        self.prompt = prompt or tagging_prompt()
        self.tagger = tagger or Tagger()
        self.batch_size = model.batch_size if model else 32

    @property
    def settings(self) -> dict[str, Any]:
        model = {"model": self.model.settings, "prompt": self.prompt.digest} if self.model else {}
        return {"rules": self.tagger.digest, **model}

    def open(self, answers: Path) -> None:
        if self.model:
            self.model.keep_answers(answers)

    def run(self, studies: Sequence[Study]) -> list[Study]:
        by_rules = [tag_by_rules(study.text, self.tagger) for study in studies]
        if self.model is None:
            return [
                replace(study, phrases=tuple(phrases))
                for study, phrases in zip(studies, by_rules, strict=True)
            ]
        asked = [(number, part) for number, study in enumerate(studies) for part in split_parts(study.text)]
        answers = self.model.ask(
            [self.prompt.messages(part.text) for _, part in asked],
            [acceptance(part.text) for _, part in asked],
        )
        linked: dict[int, list[TaggedPhrase]] = {number: [] for number in range(len(studies))}
        rejects: dict[int, list[Reject]] = {number: [] for number in range(len(studies))}
        for (number, part), answer in zip(asked, answers, strict=True):
            rejects[number] += [Reject.of(self.name, problem, part.text[:80]) for problem in answer.failures]
            if answer.text is None:
                rejects[number].append(Reject(self.name, "tagged by rules instead", part.text[:80]))
                continue
            for link in read_links(answer.text, part.text) or ():
                phrase = self._judge(studies[number].text, part, link, by_rules[number])
                if isinstance(phrase, Reject):
                    rejects[number].append(phrase)
                else:
                    linked[number].append(phrase)
        return [
            study.rejecting(*rejects[number], phrases=merge(linked[number], by_rules[number]))
            for number, study in enumerate(studies)
        ]

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        counts = Counter[str]()
        for study in studies:
            counts["reports with phrases"] += bool(study.phrases)
            counts["phrases"] += len(study.phrases)
            for phrase in study.phrases:
                counts[f"phrases {phrase.status}"] += 1
                counts["phrases for review"] += phrase.verdict == "review"
                counts["phrases of the model"] += phrase.tagger != "rules"
        return dict(counts)

    def _judge(
        self, text: str, part: Part, link: Link, by_rules: Sequence[TaggedPhrase]
    ) -> TaggedPhrase | Reject:
        taxonomy = self.tagger.taxonomy
        start, end = part.start + link.start, part.start + link.end
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end -= len(text[start:end]) - len(text[start:end].rstrip())
        words = text[start:end]
        if not re.search(r"\w", words):
            return Reject(self.name, "a link without words", link.target)
        if link.target not in taxonomy:
            return Reject(self.name, "a target that is not in the taxonomy", f"{words} -> {link.target}")
        target = taxonomy[link.target].name
        assert self.model is not None
        inside = [each for each in by_rules if start <= each.start and each.end <= end]
        same = [each for each in inside if related(taxonomy, each.target, target)]
        found = TaggedPhrase(
            words,
            start,
            end,
            target,
            side=same[0].side if same else "",
            status=same[0].status if same else self.tagger.status_of(text, start, end),
            tagger=self.model.name,
        )
        if problem := self._disagreement(words, target, inside, same):
            return replace(found, verdict="review", reasons=(problem,))
        # The rules' name is the same or the narrower one.
        return replace(found, target=same[0].target)

    def _disagreement(
        self, words: str, target: str, inside: Sequence[TaggedPhrase], same: Sequence[TaggedPhrase]
    ) -> str:
        """How the rules read a link otherwise than the model; empty if they read it the same way."""
        taxonomy = self.tagger.taxonomy
        if not same:
            return f"the rules read {inside[0].target} here" if inside else "the rules find no target here"
        if same[0].target != target and same[0].target in taxonomy.ancestors(target):
            return f"the rules read only {same[0].target} here"
        if others := [each.target for each in inside if not related(taxonomy, each.target, target)]:
            named = next((name for name in others if taxonomy[name].category == "anomaly"), None)
            if named:
                return f"the rules also read {named} here"
        return "the link is long" if len(words.split()) > LONGEST_PHRASE else ""


def tag_by_rules(text: str, tagger: Tagger) -> list[TaggedPhrase]:
    """Phrases that the rule tagger finds."""
    return [_phrase(mention) for mention in tagger(text)]


def related(taxonomy: Taxonomy, one: str, other: str) -> bool:
    """Whether two targets are the same, or one is a kind or a part of the other."""
    return one == other or one in taxonomy.ancestors(other) or other in taxonomy.ancestors(one)


def merge(first: Sequence[TaggedPhrase], second: Sequence[TaggedPhrase]) -> tuple[TaggedPhrase, ...]:
    """Phrases in the order of the text; those of the second list only where the first has none."""
    kept: list[TaggedPhrase] = []
    for phrase in [*first, *second]:
        if not any(phrase.start < each.end and each.start < phrase.end for each in kept):
            kept.append(phrase)
    return tuple(sorted(kept, key=lambda phrase: phrase.start))


def split_parts(text: str, *, longest: int = LONGEST_PART) -> Iterator[Part]:
    """Sections of a report without their headings, and long ones in pieces that end with a sentence."""
    for start, end in _sections(text):
        while start < end:
            stop = end
            if end - start > longest:
                breaks = [m.end() for m in _BREAK.finditer(text, start, start + longest)]
                stop = breaks[-1] if breaks and breaks[-1] > start else start + longest
            piece = text[start:stop]
            first = start + len(piece) - len(piece.lstrip())
            if piece.strip():
                yield Part(piece.strip(), first)
            start = stop


def acceptance(text: str) -> Acceptance:
    """Check of an answer: the text without links must be the text that was given."""

    def accept(answer: str) -> str:
        return "" if read_links(answer, text) is not None else "the text was changed"

    return accept


def read_links(answer: str, text: str) -> list[Link] | None:
    """Links of an answer, as characters of the text; None if the words between them are not those of the text.

    White space may differ. A text that contains the form of a link itself cannot be told from an answer and has no links.
    """
    if _LINK.search(text):
        return None
    answer = _without_fence(answer)
    plain, spans, cursor = "", [], 0
    for match in _LINK.finditer(answer):
        plain += answer[cursor : match.start()]
        spans.append((len(plain), len(plain) + len(match[1]), match[2].strip()))
        plain += match[1]
        cursor = match.end()
    plain += answer[cursor:]
    places, others = _words(text), _words(plain)
    if "".join(plain.split()) != "".join(text.split()) or [w for w, _ in places] != [w for w, _ in others]:
        return None
    # Both texts have the same characters besides white space, so that the n-th of one is the n-th of the other.
    here = [index for index, character in enumerate(text) if not character.isspace()]
    count = 0
    order = []
    for character in plain:
        order.append(count)
        count += not character.isspace()
    order.append(count)
    links = []
    for start, end, target in spans:
        first, last = order[start], order[end]
        if first < last:
            links.append(Link(here[first], here[last - 1] + 1, target))
    return links


def _words(text: str) -> list[tuple[str, int]]:
    return [(match.group(), match.start()) for match in re.finditer(r"\S+", text)]


def _without_fence(answer: str) -> str:
    answer = answer.strip()
    if answer.startswith("```") and answer.endswith("```") and answer.count("```") == 2:
        return answer.strip("`").partition("\n")[2]
    return answer


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each line of a report, without the headings."""
    for match in re.finditer(r"[^\n]+", text):
        heading = _HEADING.match(text, match.start(), match.end())
        yield (heading.end() if heading else match.start()), match.end()


def _phrase(mention: Mention) -> TaggedPhrase:
    return TaggedPhrase(
        mention.text, mention.start, mention.end, mention.target, side=mention.side, status=mention.status
    )
