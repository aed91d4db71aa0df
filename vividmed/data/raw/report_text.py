"""Radiology reports as text: sections, cleaning, completeness, and views.

The rules of sections follow the parser that the MIT Laboratory for Computational Physiology publishes with MIMIC-CXR
(Johnson et al., MIMIC-CXR, Scientific Data 2019). Known misspellings of section names are recognised by their
similarity to the right spelling instead of by a list. Its hand-made sections of 54 unusual studies are not included.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MIN_FINDINGS_WORDS = 10
MIN_IMPRESSION_WORDS = 2
MIN_CAPTION_LETTERS = 10

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_BLANK_LINE = re.compile(r"\n\s*\n")

_SECTIONS = (
    "addendum",
    "comment",
    "comparison",
    "date",
    "examination",
    "findings",
    "history",
    "impression",
    "indication",
    "notification",
    "preamble",
    "recommendations",
    "technique",
    "wet read",
)
_VARIANTS = {
    "clinical history": "history",
    "clinical information": "history",
    "clinical indication": "indication",
    "comparison exam": "comparison",
    "comparison film": "comparison",
    "comparisons": "comparison",
    "conclusion": "impression",
    "exam": "examination",
    "findings and impression": "impression",
    "findings/impression": "impression",
    "findings/ impression": "impression",
    "patient history": "history",
    "pfi": "history",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "recommendation": "recommendations",
    "recommendation(s)": "recommendations",
    "reference exam": "comparison",
    "reference findings": "findings",
    "type of examination": "examination",
    "wetread": "wet read",
}
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_MISSPELT = 0.8
_VIEW_HEADER = re.compile(
    r"chest|portable|ribs|bone window|(?:pa|ap|frontal|lateral) (?:and|view)|(?:one|two) views?|"
    r"frontal (?:semi-)?upright"
)


@dataclass(frozen=True)
class Section:
    """A section of a report: its standard name, its text without surrounding space, where the text starts."""

    name: str
    text: str
    start: int


def split_sections(report: str) -> list[Section]:
    """Split a report at its headers.

    A header is a line that starts with one space, then capitals, spaces and ``()/,-``, a colon and white space. The text
    before the first header is the section ``preamble``. If there are neither findings nor an impression, the part of
    the last section after its first blank line becomes the section ``last_paragraph``.

    Args:
        report: text of the file with its line breaks.

    Returns:
        Sections in order; those named findings or impression are never empty. A name may occur twice.
    """
    headers = list(_HEADER.finditer(report))
    starts = [0, *(header.end() for header in headers)]
    ends = [*(header.start() for header in headers), len(report)]
    names = ["preamble", *(section_name(header[1]) for header in headers)]
    sections = [_section(name, report, *span) for name, *span in zip(names, starts, ends, strict=True)]
    sections = [
        section for section in sections if section.text or section.name not in ("findings", "impression")
    ]
    if not any(section.name in ("findings", "impression") for section in sections):
        sections = [*sections[:-1], *_cut_last_paragraph(sections[-1], report)]
    return sections


def section_name(header: str) -> str:
    """Standard name of a section header: one of the usual names, or the header in lower case if it resembles none."""
    header = " ".join(header.lower().split())
    if header in _VARIANTS or header in _SECTIONS:
        return _VARIANTS.get(header, header)
    if contained := next((name for name in _CONTAINED if name in header), None):
        return contained
    if _VIEW_HEADER.match(header):
        return "findings"
    near = difflib.get_close_matches(header, _SECTIONS, n=1, cutoff=_MISSPELT)
    return near[0] if near else header


@dataclass(frozen=True)
class ReportText:
    """Findings and impression of a report, one line each; an empty string if there is none."""

    findings: str
    impression: str

    @property
    def is_complete(self) -> bool:
        """Whether both parts are long enough to learn from: findings of 10 words, an impression of 2."""
        return (
            len(self.findings.split()) >= MIN_FINDINGS_WORDS
            and len(self.impression.split()) >= MIN_IMPRESSION_WORDS
        )

    def __str__(self) -> str:
        """``Findings: ...`` and ``Impression: ...`` on separate lines, the form that the model writes."""
        parts = (("Findings", self.findings), ("Impression", self.impression))
        return "\n".join(f"{name}: {text}" for name, text in parts if text)


_FINDINGS = re.compile(r"\s*Findings:")
_IMPRESSION = re.compile(r"\n[^\S\n]*Impression:")


def parse_report(text: str) -> ReportText | None:
    """Read the form that :class:`ReportText` writes; None if the text does not begin with ``Findings:``."""
    begin = _FINDINGS.match(text)
    if begin is None:
        return None
    middle = _IMPRESSION.search(text, begin.end())
    if middle is None:
        return ReportText(clean_whitespace(text[begin.end() :]), "")
    findings, impression = text[begin.end() : middle.start()], text[middle.end() :]
    return ReportText(clean_whitespace(findings), clean_whitespace(impression))


def report_from_sections(sections: list[Section]) -> ReportText:
    """The last section named findings and the last named impression, without notes on who was informed.

    Sections that only say that nothing was given are empty; see :func:`clean_text`.
    """
    last = {section.name: section.text for section in sections}
    return ReportText(
        findings=clean_text(last.get("findings", "")),
        impression=cut_notification(clean_text(last.get("impression", ""))),
    )


def clean_whitespace(text: str) -> str:
    """Replace line breaks, tabs and runs of spaces by one space."""
    return " ".join(text.split())


_NOTHING_GIVEN = re.compile(
    r"(?:(?:clinical )?(?:findings?|impressions?|reports?|captions?|descriptions?|texts?|information|data) )?"
    r"(?:(?:is|are|was|were|has been|have been) )?"
    r"(?:not? (?:yet )?(?:given|available|provided|applicable|stated|specified|recorded|entered|supplied|documented|written)|"
    r"no (?:findings?|impressions?|reports?|captions?|descriptions?|texts?|information|data)"
    r" (?:given|available|provided|stated|specified|recorded|entered|supplied|documented|written)|"
    r"no (?:reports?|captions?|descriptions?|texts?|information|data)|"
    r"n a|na|none|null|nan|nil|unknown|empty|missing|blank|pending|tbd|tba|"
    r"(?:as|see) (?:findings? |report )?(?:above|below))"
)
_NOT_WORDS = re.compile(r"[\W_]+")
_LONGEST_PLACEHOLDER = 80


def clean_text(value: Any) -> str:
    """A text field of a data set as one line; empty if it is null or only says that nothing was given.

    ``Not given.``, ``N/A``, ``None``, ``nan``, ``see above``, ``---`` and their like are placeholders in any case and with
    any punctuation, also if several of them follow each other.
    """
    text = "" if value is None else clean_whitespace(str(value))
    return "" if all(map(is_placeholder, split_sentences(text))) else text


def is_placeholder(text: str) -> bool:
    """Whether a text only says that nothing was given. Removed words (``XXXX``, ``___``) say nothing either."""
    words = _NOT_WORDS.sub(" ", text[: _LONGEST_PLACEHOLDER + 1]).strip().lower()
    if len(text) > _LONGEST_PLACEHOLDER:
        return not _NOT_WORDS.sub("", text)
    return not words or set(words) <= {"x", " "} or _NOTHING_GIVEN.fullmatch(words) is not None


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\d_])")
_ITEM_NUMBER = re.compile(r"\d+[.)]")
_TITLE = re.compile(r"\b(?:Dr|Drs|Mr|Mrs|Ms|Prof|vs|No|St|approx)\.$")
_LONGEST_TITLE = len("approx.") + 1
_NOTIFICATION = re.compile(
    r"\bdrs?\b\.?(?=\s+[A-Z_])|\be-?mail(?:ed)?\b|\b(?:tele)?phoned?\b|\btelephone\b|\bpaged?\b|"
    r"\bcontacted\b|\bcommunicat(?:ed|ion)\b|\b(?:were|was|been)\s+(?:\w+\s+)?(?:discussed|reviewed)\b|"
    r"\bminutes\s+(?:after|of|following|from)\b|\bdictat(?:ed|ion)\b|\btime\s+of\s+(?:observation|discovery|review)\b",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[str]:
    """Split one line of text into sentences, each with its full stop; titles such as ``Dr.`` do not end one."""
    sentences: list[list[str]] = []
    for piece in _SENTENCE_END.split(text):
        if sentences and _TITLE.search(sentences[-1][-1][-_LONGEST_TITLE:]):
            sentences[-1].append(piece)
        elif piece:
            sentences.append([piece])
    return [" ".join(pieces) for pieces in sentences]


def cut_notification(text: str) -> str:
    """Drop the first sentence on how a finding was passed on (``discussed with Dr. ___ by phone``) and all that follow.

    Only whole words count, so that ``Drain`` cuts nothing, and neither does ``reviewed`` by itself.
    """
    kept: list[str] = []
    for sentence in split_sentences(text):
        if _NOTIFICATION.search(sentence):
            break
        kept.append(sentence)
    while kept and _ITEM_NUMBER.fullmatch(kept[-1]):
        kept.pop()
    return " ".join(kept)


_PLACEHOLDER = re.compile(r"X{3,}|_{3,}")
_COMPARISON = re.compile(
    r"\b(?:prior|previous(?:ly)?|new(?:ly)?|stable|unchanged|interval|compar(?:ed|ison)|history|patient|"
    r"(?:again|since)|(?:in|de)crease[ds]?|worsen(?:ed|ing)|improve[ds]?)\b",
    re.IGNORECASE,
)


def drop_placeholders(text: str) -> str:
    """Drop sentences in which de-identification removed words (``XXXX``, ``___``)."""
    return " ".join(sentence for sentence in split_sentences(text) if not _PLACEHOLDER.search(sentence))


def mentions_past(text: str) -> bool:
    """Whether a text may refer to earlier studies or the history, which the image itself does not show.

    Such texts are worth rewriting before training; the others can stay as they are.
    """
    return _COMPARISON.search(text) is not None


_VIEWS = {
    "LATERAL": "lateral",
    "AP AXIAL": "AP axial",
    "SWIMMERS": "Swimmer's",
    "XTABLE LATERAL": "cross-table lateral",
    "FRONTAL": "frontal",
    **{
        name: name
        for name in (
            "PA",
            "AP",
            "LL",
            "RL",
            "LAO",
            "RAO",
            "LPO",
            "RPO",
            "PA LLD",
            "PA RLD",
            "AP LLD",
            "AP RLD",
        )
    },
}
_PLANES = frozenset(
    {"axial", "coronal", "sagittal", "frontal", "lateral", "oblique", "longitudinal", "transverse"}
)
FRONTAL_VIEWS = frozenset({"PA", "AP", "frontal"})


def view_name(value: str | None) -> str | None:
    """Name of the view or plane of an image in a conversation.

    Args:
        value: DICOM ViewPosition of a radiograph, or a plane, in upper or lower case.

    Returns:
        The name, or None if the value is empty or unknown.
    """
    value = clean_whitespace(value or "")
    if value.lower() in _PLANES:
        return value.lower()
    return _VIEWS.get(value.upper())


def _section(name: str, report: str, start: int, end: int) -> Section:
    text = report[start:end]
    return Section(name, text.strip(), start + len(text) - len(text.lstrip()))


def _cut_last_paragraph(section: Section, report: str) -> Iterator[Section]:
    blank = _BLANK_LINE.search(section.text)
    if blank is None:
        yield section
        return
    yield Section(section.name, section.text[: blank.start()].strip(), section.start)
    yield _section("last_paragraph", report, section.start + blank.end(), section.start + len(section.text))
