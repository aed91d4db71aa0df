"""Texts and JSON of original data sets, read strictly: a clear error instead of a wrong value."""

import json
from pathlib import Path
from typing import Any

from vividmed.data.raw.archives import unpacked_bytes
from vividmed.errors import VividMedError

_AS_DISTRIBUTED = "take the file as it is distributed"


def read_text(path: Path) -> str:
    """Read a UTF-8 text, with or without a byte order mark; ``<name>.gz`` or ``<name>.zip`` in its place is read too.

    Raises:
        VividMedError: The file is missing or unreadable, is not UTF-8, or contains NUL bytes.
    """
    try:
        content = unpacked_bytes(path)
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; check that the data set is complete") from error
    except VividMedError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VividMedError(
            f"{path}: cannot be read ({reason}); check the path and its permissions"
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise VividMedError(
            f"{path}: line {line} is not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise VividMedError(
            f"{path}: line {line} contains a NUL byte, so the file is damaged or not UTF-8; copy it again or save it "
            "as UTF-8"
        )
    return text


def is_file(path: Path) -> bool:
    """Whether a path leads to a file; names that no file can have, such as over-long ones, lead to none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        VividMedError: The file is missing, or is not UTF-8 or not JSON.
    """
    return _parse(read_text(path), str(path))


def read_records(path: Path, *keys: str) -> list[dict[str, Any]]:
    """Read a JSON list of objects, or a file with one JSON object per line (``.jsonl``).

    Args:
        path: of the file.
        keys: fields that every object must have.

    Raises:
        VividMedError: The file is missing or contains something else, or an object lacks a field.
    """
    if path.suffix == ".jsonl":
        # Not splitlines: JSON text may contain other line separators of Unicode.
        lines = enumerate(read_text(path).split("\n"), 1)
        records = [_parse(line, f"{path}: line {number}") for number, line in lines if line.strip()]
    else:
        records = read_json(path)
    if not isinstance(records, list):
        raise VividMedError(f"{path}: does not contain a list of records; {_AS_DISTRIBUTED}")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise VividMedError(f"{path}: record {number} is not an object; {_AS_DISTRIBUTED}")
        if missing := [key for key in keys if key not in record]:
            raise VividMedError(f"{path}: record {number} lacks the field {missing[0]!r}; {_AS_DISTRIBUTED}")
    return records


def as_line(value: Any) -> str:
    """A field of a record as one line of text; empty where it is null."""
    return "" if value is None else " ".join(str(value).split())


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VividMedError(f"{where}: not readable as JSON ({error}); copy the file again") from error
