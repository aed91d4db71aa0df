"""Tables of any common format as records: delimited text in any encoding, JSON, JSON Lines and Excel."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vividmed.data.own.json_records import read_json
from vividmed.data.own.listing import RefusedRow
from vividmed.data.own.table_content import (
    TITLE_ROWS,
    IsHeader,
    TableContent,
    table_of_rows,
    unique_names,
)
from vividmed.data.raw.archives import unpacked_bytes
from vividmed.errors import VividMedError

DELIMITED = (".csv", ".tsv", ".tab", ".txt")
RECORDS = (".jsonl", ".ndjson", ".json")
WORKBOOKS = (".xlsx", ".xlsm")
SUFFIXES = (*DELIMITED, *RECORDS, *WORKBOOKS)

_LARGEST = 2**30
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WEB_PAGE = re.compile(r"\s*<(?:!doctype html|html)\b", re.IGNORECASE)
_SINGLE_QUOTES = re.compile(r"\s*'[^'\n]*'[,;|\t]")


def is_table(name: str | Path) -> bool:
    """Whether a name ends like a table."""
    return str(name).lower().removesuffix(".gz").endswith(SUFFIXES)


def read_tabular(
    path: Path,
    is_header: IsHeader,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
) -> TableContent:
    """Read a table; cells stay text where the file has text, so that ``007`` does not become 7.

    Args:
        path: CSV, TSV, JSON, JSON Lines or Excel file; may be packed as ``.gz``.
        is_header: recognises the header, which may stand below a title.
        encoding: of a text file; by default its byte order mark, UTF-8, UTF-16 or cp1252.
        delimiter: character between the fields; by default the one by which a header is recognised.
        sheet: sheet of a workbook; by default the one with a header.

    Raises:
        VividMedError: the file is missing, unreadable, of another type, or has no rows.
    """
    if not is_table(path):
        raise VividMedError(f"{path}: is not a table; give a {', '.join(SUFFIXES)} file")
    delimiter = _delimiter(delimiter)
    content = _content(path)
    if content.startswith(_OLD_OFFICE):
        raise VividMedError(
            f"{path}: is an Excel 97-2003 workbook, or protected by a password; save it as .xlsx without a password, or as CSV"
        )
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(WORKBOOKS) or content.startswith(b"PK\x03\x04"):
        from vividmed.data.own.workbook import read_workbook

        table = read_workbook(path, content, is_header, sheet=sheet)
    else:
        if sheet is not None:
            raise VividMedError(f"{path}: --sheet is for Excel files")
        text, used = decode(content, path, encoding)
        if name.endswith(RECORDS):
            table = read_json(path, text, lines=not name.endswith(".json"))
        else:
            table = _from_delimited(path, text, is_header, delimiter)
        if used not in ("utf-8", "utf-8-sig") and encoding is None:
            table.notes.insert(0, f"read as {used}; give --encoding if characters look wrong")
    if not table.records and not table.refused:
        raise VividMedError(f"{path}: contains no rows below its header; fill it")
    return table


def _delimiter(given: str | None) -> str | None:
    """The stated delimiter; tabs may be written as a word or as an escape.

    Raises:
        VividMedError: no field can end with it.
    """
    delimiter = {"\\t": "\t", "tab": "\t"}.get(given.lower(), given) if given else None
    if delimiter and (len(delimiter) != 1 or delimiter in "\r\n\"'"):
        raise VividMedError(f"--delimiter {given!r}: give one character, such as ';', or tab")
    return delimiter


def decode(content: bytes, path: Path, encoding: str | None = None) -> tuple[str, str]:
    """Text of a file and the encoding it was read in.

    Raises:
        VividMedError: it is not text in the given or in any likely encoding.
    """
    used = encoding or next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if used is None and b"\0" in content[:4000]:
        # Text of Western languages in UTF-16 has a NUL byte in every pair.
        used = "utf-16-le" if content[1::2].count(0) >= content[::2].count(0) else "utf-16-be"
    for candidate in [used] if used else ["utf-8", "cp1252"]:
        try:
            text = content.decode(candidate)
        except (LookupError, ValueError) as error:
            if isinstance(error, UnicodeError):
                continue
            raise VividMedError(
                f"{path}: --encoding {candidate!r} is unknown; use a name such as cp1252"
            ) from error
        if "\0" in text:
            row = text.count("\n", 0, text.index("\0")) + 1
            raise VividMedError(f"{path}: line {row} contains a NUL byte; export the table again")
        return text.removeprefix("\ufeff"), candidate
    raise VividMedError(f"{path}: is not text in {used or 'UTF-8'}; save it as UTF-8 or give --encoding")


def _content(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise VividMedError(
                f"{path}: has {path.stat().st_size / 1e9:.1f} GB, more than a table should; divide it"
            )
        content = unpacked_bytes(path.with_suffix("") if path.suffix == ".gz" else path)
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VividMedError(
            f"{path}: cannot be read ({reason}); check the path and its permissions"
        ) from error
    if not content.strip():
        raise VividMedError(f"{path}: the file is empty; copy it again")
    return content


def _from_delimited(path: Path, text: str, is_header: IsHeader, delimiter: str | None) -> TableContent:
    if _WEB_PAGE.match(text):
        raise VividMedError(f"{path}: is a web page, not a table; download the table itself")
    first, _, rest = text.partition("\n")
    stated = first.strip().strip('"')
    skipped = 0
    if stated.lower().startswith("sep=") and len(stated) == 5:
        delimiter, text, skipped = delimiter or stated[4], rest, 1
    quote = "'" if _SINGLE_QUOTES.match(text) else '"'
    tried: list[tuple[bool, float, _Format]] = []
    usual = "\t" if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
    for candidate in [delimiter] if delimiter else [usual, *(d for d in _DELIMITERS if d != usual)]:
        rows = _first_rows(text, _Format(candidate, quote))
        recognised = any(is_header(unique_names(row)) for row in rows)
        tried.append(
            (recognised, sum(len(row) for row in rows) / max(1, len(rows)), _Format(candidate, quote))
        )
    chosen = next((c for ok, _, c in tried if ok), None) or max(tried, key=lambda entry: entry[1])[2]
    if "\\" + quote in text and not chosen.reads(text):
        chosen = replace(chosen, escape="\\")
    sign = _DELIMITERS.get(chosen.delimiter, repr(chosen.delimiter))
    unreadable: list[RefusedRow] = []
    numbered = _delimited_rows(text, chosen, skipped, unreadable)
    table = table_of_rows(
        numbered, is_header, advice=f"put quotes around values that contain {chosen.delimiter!r}"
    )
    if unreadable and not is_header(table.columns):
        raise VividMedError(f"{path}: {unreadable[0]}")
    table.refused = sorted([*table.refused, *unreadable])
    if chosen.delimiter != usual and delimiter is None:
        table.notes.append(f"fields are separated by {sign}")
    return table


@dataclass(frozen=True)
class _Format:
    """Signs of a delimited text; ``escape`` stands before quotation marks inside values that are not doubled."""

    delimiter: str
    quote: str = '"'
    escape: str | None = None

    def reader(self, lines: Iterable[str], *, strict: bool) -> Any:
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            strict=strict,
        )

    def reads(self, text: str) -> bool:
        try:
            for _ in self.reader(io.StringIO(text, newline=""), strict=True):
                pass
        except csv.Error:
            return False
        return True


def _first_rows(text: str, form: _Format) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in form.reader(io.StringIO(text, newline=""), strict=False):
            if any(row):
                rows.append(row)
            if len(rows) == TITLE_ROWS:
                break
    except csv.Error:
        pass
    return rows


def _delimited_rows(
    text: str, form: _Format, skipped: int, unreadable: list[RefusedRow]
) -> Iterator[tuple[int, list[str]]]:
    """Rows with their numbers; a row that cannot be read is added to ``unreadable``, and reading goes on below it."""
    csv.field_size_limit(max(csv.field_size_limit(), 2**27))  # long reports
    lines = list(io.StringIO(text, newline=""))
    number, start = skipped, 0
    while start < len(lines):
        reader = form.reader((lines[place] for place in range(start, len(lines))), strict=True)
        read = 0
        try:
            for fields in reader:
                number, read = number + 1, reader.line_num
                yield number, fields
            return
        except csv.Error as error:
            number, start = number + 1, start + read + 1
            reason = (
                f"is not readable ({error}); a quotation mark may be missing or surplus there: double those inside "
                "values, or export the table again"
            )
            unreadable.append(RefusedRow(number, "", reason))
