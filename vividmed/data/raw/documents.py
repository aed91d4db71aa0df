"""Texts and JSON of original data sets, read strictly: a clear error instead of a wrong value."""

import json
from pathlib import Path
from typing import Any

from vividmed.data.raw.archives import unpacked_bytes
from vividmed.errors import VividMedError


def read_text(path: Path) -> str:
    """Text of a file, UTF-8 with or without a byte order mark; ``<name>.gz`` or ``<name>.zip`` in its place will do.

    Raises:
        VividMedError: The file is missing or not UTF-8.
    """
    try:
        return unpacked_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; check that the data set is complete") from error
    except (OSError, UnicodeDecodeError) as error:
        raise VividMedError(f"{path}: not a readable UTF-8 text ({error}); copy it again") from error


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        VividMedError: The file is missing, not UTF-8, or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise VividMedError(f"{path}: not readable as JSON ({error}); copy it again") from error


def read_records(path: Path, *keys: str) -> list[dict[str, Any]]:
    """A JSON list of objects, or a file with one JSON object a line (``.jsonl``).

    Args:
        path: Of the file.
        keys: That every object must have.

    Raises:
        VividMedError: The file is missing or holds something else, or an object lacks a key.
    """
    if path.suffix == ".jsonl":
        records = [_parse_line(path, number, line) for number, line in _lines(path)]
    else:
        records = read_json(path)
    if not isinstance(records, list):
        raise VividMedError(f"{path}: holds no list of records; take the file as it is distributed")
    for number, record in enumerate(records):
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise VividMedError(
                f"{path}: record {number} has no field {missing[0]!r}; take the file as it is distributed"
            )
    return records


def as_line(value: Any) -> str:
    """A field of a record as one line of text; empty where it is null."""
    return "" if value is None else " ".join(str(value).split())


def _lines(path: Path) -> list[tuple[int, str]]:
    # Not splitlines: JSON text may hold other line separators of Unicode.
    return [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]


def _parse_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise VividMedError(f"{path}: line {number} is no JSON ({error}); copy the file again") from error
