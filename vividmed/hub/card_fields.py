"""What the card of a medical model has to say, and which of it a card lacks."""

import re
from dataclasses import dataclass

from vividmed.errors import VividMedError

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_NOTHING = re.compile(r"(?i)^\W*(todo|tbd|n/?a|none|unknown|more information needed)?\W*$")


@dataclass(frozen=True)
class CardField:
    """A field of a card.

    Attributes:
        name: what is missing where it is not there.
        heading: pattern of the heading of its section.
        content: pattern that its section, or the whole card where there is no heading, must contain.
    """

    name: str
    heading: str | None
    content: str | None = None


FIELDS = (
    CardField("intended use", r"intended use"),
    CardField("uses that are out of scope", r"out[- ]of[- ]scope"),
    CardField("training data with its access terms", r"training data", r"(?i)access|licen[cs]e"),
    CardField("limits of population and modality", r"population|modalit"),
    CardField("source of the labels", r"labels?\b"),
    CardField("figures with data set and split, or that there are none", r"evaluation|results|performance"),
    CardField("risks", r"risks?\b"),
    CardField("contact", r"contact"),
    CardField("citation", r"citation|cite"),
    CardField("the words 'not a medical device'", None, r"(?i)not\s+a\s+medical\s+device"),
)


def missing_fields(card: str) -> list[str]:
    """Name the fields that a model card lacks, or has no content for.

    Args:
        card: its text, with or without a metadata block.

    Returns:
        Names from :data:`FIELDS`, in their order; ``licence`` last if the metadata give none.
    """
    metadata, text = _split(card)
    sections = _sections(text)
    missing = []
    for field in FIELDS:
        if field.heading is None:
            found = [text]
        else:
            found = [body for title, body in sections if re.search(field.heading, title, re.IGNORECASE)]
        found = [body for body in found if not _NOTHING.match(body.strip())]
        if not any(field.content is None or re.search(field.content, body) for body in found):
            missing.append(field.name)
    if not re.search(r"^license\s*:\s*\S", metadata, re.MULTILINE):
        missing.append("licence, in the metadata")
    return missing


def check_fields(card: str, name: str) -> None:
    """Raise a VividMedError that names everything a model card lacks."""
    if missing := missing_fields(card):
        raise VividMedError(f"{name}: the card lacks {'; '.join(missing)}; add them")


def _split(card: str) -> tuple[str, str]:
    match = re.match(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", card, re.DOTALL)
    return (match[1], card[match.end() :]) if match else ("", card)


def _sections(text: str) -> list[tuple[str, str]]:
    """Headings, each with everything up to the next one of the same or a higher level."""
    headings = list(_HEADING.finditer(text))
    levels = [len(match[0]) - len(match[0].lstrip("#")) for match in headings]
    sections = []
    for number, match in enumerate(headings):
        later = (
            headings[other].start()
            for other in range(number + 1, len(headings))
            if levels[other] <= levels[number]
        )
        sections.append((match[1], text[match.end() : next(later, len(text))]))
    return sections
