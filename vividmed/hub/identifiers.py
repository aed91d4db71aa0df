"""Patterns of text that can point to a person, or open an account.

The patterns aim at what the HIPAA safe harbour list (45 CFR 164.514(b)(2)) names and a machine can tell from a
report's ordinary numbers: dates finer than the year, electronic addresses, telephone and record numbers, device and
study identifiers, and names in a form that only names have (DICOM's, or after a title). A bare name in running text
has no such form: a clean result does not prove de-identification.

Every pattern matches in linear time: runs are possessive or bounded, and a run is entered at its start only.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from vividmed.hub.date_forms import DATE_PATTERNS

ACCESS_TOKEN = "access token"
_CACHED_LENGTH = 300

_LETTER = r"[^\W\d_]"
_UPPER = "[" + "".join(re.escape(c) for c in map(chr, range(0x530)) if c.isupper()) + "]"
# Scripts without capitals, in which one character may be a whole name.
_UNCASED = "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0590-\u06ff\u0900-\u0dff]"
_PART = rf"{_LETTER}(?:{_LETTER}|['’-](?={_LETTER})){{0,40}}"
_PARTICLE = (
    r"(?:(?:von|van|vander|de|del|della|der|den|di|da|dos|du|la|le|ten|ter|zu|zur|al|el|bin|ben|ibn|st)\.? )"
)
_NAME = (
    rf"(?:{_UPPER}\. ?){{0,3}}{_PARTICLE}{{0,3}}"
    rf"(?:{_UPPER}['’]?(?:{_LETTER}|['’-](?={_LETTER})){{1,40}}|{_UNCASED}{{1,12}})"
)
_DOTTED_TITLE = r"(?i:dr|drs|dra|mr|mrs|ms|mx|prof|sr|sra|mme|mlle|hr|fr)\."
_TITLE = r"(?:Dr|Mr|Mrs|Ms|Mx|Miss|Prof|Professor|Doctor|Herr|Herrn|Frau|Mme|Mlle|Madame|Monsieur|Señora?|Signora?|Sir|Dame)"
_DEGREE = r"(?:(?:med|dent|habil|rer|nat|phil)\. {1,2}|(?:Dr|Prof)\.? {1,2}){0,4}"

_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        ACCESS_TOKEN,
        r"\bhf_[A-Za-z0-9]{20,}+|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22,}+|\bglpat-[\w-]{20,}+"
        r"|\bsk-[\w-]{32,}+|\bxox[abprs]-[\w-]{10,}+|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{35}"
        r"|\beyJ[\w-]{10,}+\.eyJ[\w-]{10,}+|-----BEGIN [A-Z ]{0,40}PRIVATE KEY",
    ),
    (
        "e-mail address",
        rf"(?<![\w.+-])[\w.+-]{{1,64}}+@(?:[^\W_](?:[^\W_]|-){{0,62}}\.){{1,8}}{_LETTER}{{2,24}}",
    ),
    ("home folder", r"(?:/home/|/Users/|\b[A-Za-z]:\\{1,2}Users\\{1,2})[\w.-]{2,64}"),
    ("DICOM UID", r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d{0,63}+)){5,}+(?!\d)|(?<![\d.])2\.25\.\d{16,39}(?!\d)"),
    (
        "record number",
        r"\b(?i:MRN|medical record(?: number| no\.?)?|hospital (?:number|no\.?)|NHS (?:number|no\.?)|patient[ _]?id"
        r"|pat(?:ienten)?[.-]{0,2} ?(?:nr|id)\.?|fallnummer|accession(?:[ _]?number| no\.?)?)"
        r"[\"']?\s{0,3}(?:is\s{1,3})?[:#=]{0,3}\s{0,3}[\"']?[A-Za-z]{0,3}-?\d[\d-]{4,40}",
    ),
    ("record number", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    ("phone number", r"(?<![\w.+-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-.]\d{4}(?![\w-]|\.\d)"),
    ("phone number", r"(?<![\w.+-])\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}(?!\d)"),
    (
        "phone number",
        r"\b(?i:tel|phone|telephone|fax|pager|telefon|mobile)\b\.?\s{0,3}(?:no\.?|number)?\s{0,3}(?:is\s{1,3})?[:#]?"
        r"\s{0,3}\(?\+?\d(?:[ ().-]{0,2}\d){6,14}",
    ),
    # DOE^JANE, doe^jane, MÜLLER^JÜRGEN^^DR; a^b is mathematics.
    (
        "person name",
        rf"(?<![\w^]){_LETTER}{{2,40}}(?:[ '’.-]{_LETTER}{{1,40}}){{0,3}}\^{{1,4}}{_LETTER}{{2,40}}",
    ),
    ("person name", rf"(?<![\w^]){_LETTER}{{2,40}}\^\^|(?<![\w^]){_UPPER}{{2,40}}\^{_UPPER}(?![\w^])"),
    ("person name", rf"(?<![\w^]){_UNCASED}{{1,8}}\^{_UNCASED}{{1,8}}"),
    (
        "person name",
        r"\b(?i:patient'?s?[ _]?name|(?:first|last|full|given|family)[ _]?name|surname|vorname|nachname|nom de famille"
        rf"|apellidos?)[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?{_LETTER}{{2,40}}",
    ),
    (
        "person name",
        rf"\b(?i:name|patient)[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?{_UPPER}{_PART}, {{0,2}}{_UPPER}{_PART}",
    ),
    (
        "person name",
        rf"(?<!\w){_DOTTED_TITLE} {{0,2}}{_DEGREE}{_NAME}|(?<!\w){_TITLE} {{1,2}}{_DEGREE}{_NAME}",
    ),
    (
        "person name",
        r"\b(?i:signed|dictated|reported|read|reviewed|interpreted|transcribed|verified|approved|referred|performed) "
        rf"(?i:electronically )?(?i:by)[: ]{{1,3}}{_UPPER}(?:\.|{_LETTER}{{1,40}}) {{1,2}}{_NAME}",
    ),
    (
        "person name",
        rf"(?<!\w){_UPPER}{_PART}, {{1,2}}(?:M\.?D\.?|D\.O\.|R\.?N\.|FRCR|FRCPC?|MBBS|MBChB)(?!\w)",
    ),
)
_COMPILED = (
    *((kind, re.compile(pattern)) for kind, pattern in _PATTERNS),
    *(("date", pattern) for pattern in DATE_PATTERNS),
)

_WITH_DIGITS = frozenset(["date", "DICOM UID", "phone number", "record number"])

# Random identifiers in groups of eight or as UUID; some groups look like a compact date.
_HEX_IDENTIFIER = re.compile(
    r"(?<![0-9a-f-])(?:(?:[0-9a-f]{8}-){3,}+[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE,
)
# UIDs that the DICOM standard itself assigns, such as transfer syntaxes.
_STANDARD_UID = "1.2.840.10008."


@dataclass(frozen=True)
class Identifier:
    """A piece of text that looks like an identifier.

    Attributes:
        category: what it looks like, such as ``date``.
        text: the piece, normalised (NFKC).
    """

    category: str
    text: str

    def __str__(self) -> str:
        # A message may end up in a log that others read; a date or an address has to be seen to be judged.
        shown = f"{self.text[:6]}..." if self.category == ACCESS_TOKEN else self.text
        return f"{self.category} {shown!r}"


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Find everything in a text that looks like a token, a date, an address, a name, or a number of a person or study.

    Takes time in proportion to the length of the text.

    Args:
        text: text of any length, such as a report or a file name.

    Returns:
        Findings in order of category; a piece of text counts once.
    """
    # The same strings come again and again in the rows of a data set.
    return _cached(text) if len(text) <= _CACHED_LENGTH else _find(text)


def _find(text: str) -> tuple[Identifier, ...]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(c for c in text if c.isascii() or unicodedata.category(c) != "Cf")
    text = _HEX_IDENTIFIER.sub(" ", " ".join(text.split()))
    has_digit = any(character.isdigit() for character in text)
    found: dict[str, Identifier] = {}
    for category, pattern in _COMPILED:
        if category in _WITH_DIGITS and not has_digit:
            continue
        for match in pattern.finditer(text):
            piece = match.group().strip()
            if category == "DICOM UID" and not _is_uid(piece):
                continue
            found.setdefault(piece, Identifier(category, piece))
    return tuple(found.values())


_cached = lru_cache(maxsize=65536)(_find)


def _is_uid(text: str) -> bool:
    """Tell a UID from section numbers and versions, and an instance from a constant of the standard."""
    return (
        len(text) >= 20
        and any(len(part) >= 3 for part in text.split("."))
        and not text.startswith(_STANDARD_UID)
    )
