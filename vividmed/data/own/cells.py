"""Cells of tables as text and as lists of texts."""

import ast
import datetime
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

_EMPTY = frozenset(
    {"", "nan", "nat", "null", "<na>"}
    | {"#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!", "#calc!", "#spill!"}
)
_EMPTY_KEYS = _EMPTY | {"none", "n/a", "na", "-", "--"}
_INVISIBLE = "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
"""Marks without width, such as the one that Windows puts before copied paths."""
_CONTROLS = dict.fromkeys(set(range(32)) - set(map(ord, "\t\n\r\v\f")), " ")
_SEPARATORS = (";", "|", "\n", ",")
_QUOTED = r"'[^']*'|\"[^\"]*\""
_ARRAY = re.compile(rf"\[\s*(?:(?:{_QUOTED})\s*)+\]")
"""Texts between brackets without commas, as NumPy prints an array."""

_EXCEL_TEXT = re.compile(r'="(.*)"')
"""How programs write a number into CSV that Excel is to keep as text."""

_PATH_FIELDS = ("path", "file_name", "filename", "image", "url")
"""Fields by which records of other programs name an image."""
_LONGEST_LIST = 1_000_000
_LARGEST_WHOLE = 1e21


def cell_text(value: Any) -> str:
    """A cell as text in Unicode's composed form, without surrounding space; empty if nothing was entered.

    Whole numbers that a spreadsheet stores as fractions (``7.0``) are written as whole numbers. What libraries and
    spreadsheets write for a missing value (``nan``, ``null``, ``#N/A``) is empty; ``None`` and ``no`` may be answers.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE:
        value = int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    if isinstance(value, datetime.date | datetime.datetime):
        value = value.isoformat()
    text = unicodedata.normalize("NFC", str(value)).translate(_CONTROLS).strip().strip(_INVISIBLE).strip()
    return "" if text.casefold() in _EMPTY else text


def key_text(value: Any) -> str:
    """A cell that identifies something (a file, a patient, a split) as one line; ``None`` and ``N/A`` are empty too."""
    text = " ".join(cell_text(value).split())
    if excel := _EXCEL_TEXT.fullmatch(text):
        text = excel[1]
    return "" if text.casefold() in _EMPTY_KEYS else text


def number_text(value: Any) -> str:
    """As :func:`key_text`; whole numbers that a library has written as fractions (``7.0``) are whole again."""
    text = key_text(value)
    return text.partition(".")[0] if re.fullmatch(r"\d+\.0", text) else text


def paragraphs(value: Any) -> str:
    """A cell with a longer text: line breaks are kept, blank lines and surplus space are not."""
    lines = (" ".join(line.split()) for line in cell_text(value).splitlines())
    return "\n".join(line for line in lines if line)


def listed(value: Any) -> list[Any] | None:
    """Items of a cell that is a list, or the text of one in JSON or as Python or NumPy prints it; None for other cells."""
    if isinstance(value, list | tuple):
        return list(value)
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] + text[-1:] not in ("[]", "()") or len(text) > _LONGEST_LIST:
        return None
    if _ARRAY.fullmatch(text):
        return [quoted[1:-1] for quoted in re.findall(_QUOTED, text)]
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(items, list | tuple):
            return list(items)
    return None


def cell_paths(value: Any, exists: Callable[[str], bool]) -> list[str]:
    """Paths that a cell names: one, or several in a list or between ``;``, ``|``, line breaks or commas.

    Args:
        value: cell.
        exists: whether a text is the path of an image, so that a path with a separator in it is not divided.
    """
    items = [value] if isinstance(value, Mapping) else listed(value)
    if items is not None:
        return [text for item in items if (text := key_text(_path_field(item)))]
    text = key_text(value)
    whole = cell_text(value)
    if not text or exists(text):
        return [text] if text else []
    for separator in _SEPARATORS:
        pieces = [piece for part in whole.split(separator) if (piece := key_text(part))]
        if len(pieces) > 1 and (separator != "," or all(map(exists, pieces))):
            return pieces
    return [text]


def _path_field(item: Any) -> Any:
    """The name of an image in a record about it; other items as they are."""
    if not isinstance(item, Mapping):
        return item
    return next((_path_field(item[name]) for name in _PATH_FIELDS if item.get(name)), item)


def question_answer_pairs(
    question: Any, answer: Any, *, separator: str | None = None
) -> tuple[list[str], list[str]]:
    """Questions and answers of two cells: one of each, or lists of them.

    Texts are divided at ``;`` only if there is one answer per question and every question ends with a question mark,
    because a semicolon may also be part of a sentence. A separator given by the user always divides.

    Returns:
        Questions and answers; their numbers may differ, and one may be empty.
    """
    questions, answers = listed(question), listed(answer)
    if questions is not None or answers is not None:
        both = [
            [cell] if items is None else items for cell, items in ((question, questions), (answer, answers))
        ]
    elif separator is not None:
        both = [cell_text(cell).split(separator) for cell in (question, answer)]
    else:
        both = [[question], [answer]]
        parts = [cell_text(cell).strip(" ;").split(";") for cell in (question, answer)]
        if 1 < len(parts[0]) == len(parts[1]) and all(part.rstrip().endswith("?") for part in parts[0]):
            both = parts
    first, second = ([" ".join(cell_text(item).split()) for item in items] for items in both)
    return ([], []) if not any(first) and not any(second) else (first, second)
