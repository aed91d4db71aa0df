"""Patterns of text that can point to a person, or open an account.

The patterns aim at what the HIPAA safe harbour list (45 CFR 164.514(b)(2)) names and a machine can tell from a
report's ordinary numbers: dates finer than the year, electronic addresses, telephone and record numbers, device and
study identifiers. A name in running text has no such form: a clean result is not a proof of de-identification.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

ACCESS_TOKEN = "access token"

_MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
# "May" and the short forms are left out here: without a year they are ordinary words.
_LONG_MONTH = r"(?:January|February|March|April|June|July|August|September|October|November|December)"
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_ORDINAL = r"(?:st|nd|rd|th)?"

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        ACCESS_TOKEN,
        re.compile(
            r"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{36}|\bAKIA[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
        ),
    ),
    ("e-mail address", re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b")),
    ("DICOM UID", re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){5,}(?!\d)")),
    (
        "record number",
        re.compile(
            r"\b(?:MRN|medical record(?: number| no\.?)?|hospital (?:number|no\.?)|NHS (?:number|no\.?)|patient[ _]?id"
            r"|accession(?: number| no\.?)?)\s*(?:is\s*)?[:#=]*\s*[A-Z]{0,3}-?\d[\d-]{4,}",
            re.IGNORECASE,
        ),
    ),
    ("record number", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
    (
        "phone number",
        re.compile(r"(?<![\w.+-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-.]\d{4}(?![\w-]|\.\d)"),
    ),
    (
        "phone number",
        re.compile(r"(?<![\w.+-])\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}(?!\d)"),
    ),
    (
        "phone number",
        re.compile(
            r"\b(?:tel|phone|telephone|fax|pager)\b\.?\s*(?:no\.?|number)?\s*(?:is\s*)?[:#]?\s*\(?\d(?:[ ().-]{0,2}\d){6,}",
            re.IGNORECASE,
        ),
    ),
    ("date", re.compile(rf"(?<![\d.]){_YEAR}([-/_]){_MONTH_NUMBER}\1{_DAY}(?!\d)")),
    (
        "date",
        re.compile(
            rf"(?<![\d./_-])(?:{_DAY}([-/._]){_MONTH_NUMBER}\1|{_MONTH_NUMBER}([-/._]){_DAY}\2){_YEAR}(?![\d./-]\d|\d)"
        ),
    ),
    ("date", re.compile(rf"(?<![0-9a-f.]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![0-9a-f])")),
    (
        "date",
        re.compile(
            rf"\b(?i:dated|date|on|from|since|of|born|dob|exam|study|to)\b:?\s{{1,3}}"
            rf"(?:{_DAY}/{_MONTH_NUMBER}|{_MONTH_NUMBER}/{_DAY})/\d\d(?![\d/]|\s*(?:mm|cm|ml)\b)"
        ),
    ),
    ("date", re.compile(rf"(?<!\d){_DAY}{_ORDINAL}[ -](?:of )?{_MONTH}\.?,?[ -]{_YEAR}(?!\d)")),
    ("date", re.compile(rf"\b{_MONTH}\.? {_DAY}{_ORDINAL},? {_YEAR}(?!\d)")),
    ("date", re.compile(rf"\b{_LONG_MONTH} {_DAY}{_ORDINAL}(?!\d|\s*(?:mm|cm|ml)\b)")),
    ("person name", re.compile(r"(?<![\w^])[A-Z][A-Za-z'-]+\^[A-Z][A-Za-z'-]*")),
    ("person name", re.compile(r"\b(?i:patient'?s?[ _]?name)\s*[:=]\s*[A-Za-z]{2,}")),
    ("person name", re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof)\.? [A-Z][a-z]{2,}")),
)

# Random identifiers in groups of eight or as UUID; some groups look like a compact date.
_HEX_IDENTIFIER = re.compile(
    r"(?:[0-9a-f]{8}-){3,}[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
# UIDs that the DICOM standard itself assigns, such as transfer syntaxes.
_STANDARD_UID = "1.2.840.10008."


@dataclass(frozen=True)
class Identifier:
    """A piece of text that looks like an identifier, and what it looks like."""

    kind: str
    text: str

    def __str__(self) -> str:
        # A message may end up in a log that others read; a date or an address has to be seen to be judged.
        shown = f"{self.text[:6]}..." if self.kind == ACCESS_TOKEN else self.text
        return f"{self.kind} {shown!r}"


@lru_cache(maxsize=65536)
def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """What in a text looks like a token, a date, an address, or a number of a person or a study.

    Args:
        text: of any length; a file name will do.

    Returns:
        In order of kind; a piece of text counts once.
    """
    text = _HEX_IDENTIFIER.sub(" ", text)
    found: dict[str, Identifier] = {}
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            piece = match.group().strip()
            if kind == "DICOM UID" and not _is_uid(piece):
                continue
            found.setdefault(piece, Identifier(kind, piece))
    return tuple(found.values())


def _is_uid(text: str) -> bool:
    """Tell a UID from section numbers and versions, and an instance from a constant of the standard."""
    return (
        len(text) >= 20
        and any(len(part) >= 3 for part in text.split("."))
        and not text.startswith(_STANDARD_UID)
    )
