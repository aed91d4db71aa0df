"""JSON files as records: a list of objects, JSON Lines, columns by name, or one list per split."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from vividmed.data.own.columns import SYNONYMS, normalised
from vividmed.data.own.listing import RefusedRow
from vividmed.data.own.table_content import SPLIT_COLUMN, Record, TableContent
from vividmed.data.raw.splits import official_split
from vividmed.errors import VividMedError

CHAT_COLUMNS = ("conversations", "conversation", "messages")
"""Names of a list of turns, as in data sets for chat models."""

CHAT_QUESTIONS, CHAT_ANSWERS, CHAT_IMAGES = "question (chat)", "answer (chat)", "image (chat)"
"""Columns added for the turns of a chat or a list of pairs, and for images that messages name."""

_IMAGE_MARKS = ("<image>", "<img>", "<video>")


def read_json(path: Path, text: str, *, lines: bool) -> TableContent:
    """Read the records of a JSON file.

    Args:
        path: of the file, for errors.
        text: its content.
        lines: whether its name is that of JSON Lines; a file of the other form is understood too.

    Raises:
        VividMedError: the file is not JSON, or contains no records.
    """
    refused: list[RefusedRow] = []
    entries: list[tuple[int, Any, str]] = []
    whole = None if lines and not text.lstrip().startswith("[") else _whole(path, text)
    if whole is not None:
        entries = list(_entries(path, whole))
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    entries.append((number, json.loads(line.rstrip().removesuffix(",")), ""))
                except (ValueError, RecursionError) as error:
                    reason = f"not readable as JSON ({error}); correct the line"
                    refused.append(RefusedRow(number, "", reason))
    table = TableContent((), [], refused)
    columns: dict[str, None] = {}
    for number, entry, split in entries:
        if not isinstance(entry, dict):
            reason = "is not an object with named fields; correct it"
            table.refused.append(RefusedRow(number, "", reason, split))
            continue
        cells = {**entry, **_chat(entry), **({SPLIT_COLUMN: split} if split else {})}
        columns |= dict.fromkeys(cells)
        table.records.append(Record(number, cells, split))
    table.columns = tuple(columns)
    return table


def _whole(path: Path, text: str) -> Any:
    """The content of one JSON document; None for a file of JSON Lines."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        first = text.lstrip().partition("\n")[0]
        if first.rstrip().endswith("}"):
            try:
                return None if isinstance(json.loads(first), dict) else _not_readable(path, error)
            except (ValueError, RecursionError):
                pass
        return _not_readable(path, error)


def _not_readable(path: Path, error: Exception) -> Any:
    raise VividMedError(f"{path}: not readable as JSON ({error}); export it again") from error


def _entries(path: Path, content: Any) -> Iterator[tuple[int, Any, str]]:
    """Number, fields and split of each record."""
    if isinstance(content, dict):
        lists = {name: value for name, value in content.items() if isinstance(value, list) and value}
        nested = {name: value for name, value in content.items() if isinstance(value, dict) and value}
        if lists and all(map(official_split, lists)):
            for name, records in lists.items():
                yield from ((number, record, name) for number, record in enumerate(records, 1))
            return
        if len(lists) == 1 and all(isinstance(entry, dict) for entry in next(iter(lists.values()))):
            content = next(iter(lists.values()))
        elif len(lists) > 1 and len({len(value) for value in lists.values()}) == 1:
            content = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        elif len(nested) == len(content) and nested:
            content = _of_objects(nested)
    if not isinstance(content, list):
        raise VividMedError(f"{path}: does not contain a list of records; give a list of objects")
    yield from ((number, record, "") for number, record in enumerate(content, 1))


def _of_objects(objects: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Records of a mapping of ids to records, or of columns to cells by row, as pandas writes them."""
    keys = [tuple(value) for value in objects.values()]
    by_row = len(set(keys)) == 1 and all(key.isdecimal() for key in keys[0])
    if by_row:
        return [{name: cells[row] for name, cells in objects.items()} for row in keys[0]]
    return [{"id": name, **record} for name, record in objects.items()]


def _chat(entry: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Questions and answers of a record with a list of turns; empty without one."""
    name = next((name for name in CHAT_COLUMNS if isinstance(entry.get(name), list)), None)
    if name is None:
        return _pairs(entry)
    texts: dict[bool, list[str]] = {True: [], False: []}
    images: list[Any] = []
    for turn in entry[name]:
        if not isinstance(turn, dict):
            return {}
        role = str(turn.get("from", turn.get("role", ""))).casefold()
        if role == "system":
            continue
        content = turn.get("value", turn.get("content"))
        texts[role in ("human", "user")].append(_plain(content))
        images += _images(content)
    return {
        CHAT_QUESTIONS: texts[True],
        CHAT_ANSWERS: texts[False],
        **({CHAT_IMAGES: images} if images else {}),
    }


def _pairs(entry: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Questions and answers of a record with a list of objects that have one of each; empty without one."""
    for pairs in entry.values():
        if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
            continue
        asked, answered = (
            [
                next((pair[name] for name in pair if normalised(name) in SYNONYMS[role]), None)
                for pair in pairs
            ]
            for role in ("question", "answer")
        )
        if any(each is not None for each in asked) and any(each is not None for each in answered):
            return {CHAT_QUESTIONS: asked, CHAT_ANSWERS: answered}
    return {}


def _images(content: Any) -> list[Any]:
    """What the parts of a message name as their images."""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    named = (
        part.get("image_url", {k: v for k, v in part.items() if k != "type"})
        for part in parts
        if "text" not in part
    )
    return [each for each in named if each]


def _plain(content: Any) -> str:
    """Text of a turn, without the marks of images."""
    if isinstance(content, list):
        parts = (part.get("text", "") if isinstance(part, dict) else part for part in content)
        content = " ".join(str(part) for part in chain(parts) if part)
    text = str(content or "")
    for mark in _IMAGE_MARKS:
        text = text.replace(mark, " ")
    return " ".join(text.split())
