"""Radiology reports as text: sections, cleaning, completeness, and views.

The rules of sections follow the parser that the MIT Laboratory for Computational Physiology publishes with MIMIC-CXR
(Johnson et al., MIMIC-CXR, Scientific Data 2019). Known misspellings of section names are recognised by their
likeness to the right spelling instead of a list. Its hand-made sections of 54 unusual studies are not carried over.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

MIN_FINDINGS_WORDS = 10
MIN_IMPRESSION_WORDS = 2

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
    """Cut a report at its headers.

    A header is a line that starts with one space, then capitals, spaces and ``()/,-``, a colon and white space. What
    stands before the first one is the section ``preamble``. Where neither findings nor impression is found, the part
    of the last section after its first blank line becomes the section ``last_paragraph``.

    Args:
        report: the file's text with its line breaks.

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
    """Standard name of a section header: one of the usual names, or the header in lower case when it is like none."""
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
    """Findings and impression of a report, each one line; an empty string where there is none."""

    findings: str
    impression: str

    @property
    def is_complete(self) -> bool:
        """Both parts long enough to learn from: findings of 10 words, an impression of 2."""
        return (
            len(self.findings.split()) >= MIN_FINDINGS_WORDS
            and len(self.impression.split()) >= MIN_IMPRESSION_WORDS
        )

    def __str__(self) -> str:
        """``Findings: ...`` and ``Impression: ...`` on lines of their own, the form that the model writes."""
        parts = (("Findings", self.findings), ("Impression", self.impression))
        return "\n".join(f"{name}: {text}" for name, text in parts if text)


_WRITTEN = re.compile(r"\s*Findings:(?P<findings>.*?)(?:\n\s*Impression:(?P<impression>.*))?\Z", re.DOTALL)


def parse_report(text: str) -> ReportText | None:
    """Read the form that :class:`ReportText` writes; None when the text does not begin with ``Findings:``."""
    match = _WRITTEN.match(text)
    if match is None:
        return None
    return ReportText(clean_whitespace(match["findings"]), clean_whitespace(match["impression"] or ""))


def report_from_sections(sections: list[Section]) -> ReportText:
    """The last section named findings and the last named impression, without notes on whom the reader told."""
    last = {section.name: section.text for section in sections}
    return ReportText(
        findings=clean_whitespace(last.get("findings", "")),
        impression=cut_notification(clean_whitespace(last.get("impression", ""))),
    )


def clean_whitespace(text: str) -> str:
    """Line breaks, tabs and runs of spaces become one space."""
    return " ".join(text.split())


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\d_])")
_ITEM_NUMBER = re.compile(r"\d+[.)]")
_TITLE = re.compile(r"\b(?:Dr|Drs|Mr|Mrs|Ms|Prof|vs|No|St|approx)\.$")
_NOTIFICATION = re.compile(
    r"\bdrs?\b\.?(?=\s+[A-Z_])|\be-?mail(?:ed)?\b|\b(?:tele)?phoned?\b|\btelephone\b|\bpaged?\b|"
    r"\bcontacted\b|\bcommunicat(?:ed|ion)\b|\b(?:were|was|been)\s+(?:\w+\s+)?(?:discussed|reviewed)\b|"
    r"\bminutes\s+(?:after|of|following|from)\b|\bdictat(?:ed|ion)\b|\btime\s+of\s+(?:observation|discovery|review)\b",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[str]:
    """Sentences of one line of text, each with its full stop; titles such as ``Dr.`` end none."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(text):
        if sentences and _TITLE.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        elif piece:
            sentences.append(piece)
    return sentences


def cut_notification(text: str) -> str:
    """Drop the first sentence on how a finding was passed on (``discussed with Dr. ___ by phone``) and all after it.

    Words count whole, so that ``Drain`` and ``reviewed`` alone cut nothing.
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
    """Whether a text may speak of earlier studies or the history, which an image alone does not show.

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
    """How the view or plane of an image is called in a conversation.

    Args:
        value: DICOM ViewPosition of a radiograph, or a plane, in any case.

    Returns:
        The name, or None when the value is empty or unknown.
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
