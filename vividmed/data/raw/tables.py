"""Tables of original data sets, read strictly: a clear error instead of a wrong value."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vividmed.data.raw.archives import unpacked_bytes
from vividmed.errors import VividMedError

Row = Mapping[str, str]


def read_table(path: Path, *columns: str, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV file with a header.

    Args:
        path: Of the file, UTF-8 with or without a byte order mark; ``<name>.gz`` or ``<name>.zip`` in its place will do.
        columns: Names that must be there.
        delimiter: Between fields.

    Returns:
        One dict a row, all values as stripped text; a missing value is the empty string.

    Raises:
        VividMedError: The file is missing, not UTF-8, or lacks a column.
    """
    try:
        text = unpacked_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; check that the data set is complete") from error
    except (OSError, UnicodeDecodeError) as error:
        raise VividMedError(f"{path}: not a readable UTF-8 table ({error}); save it as UTF-8") from error
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restkey="")
        header = [name.strip() for name in reader.fieldnames or ()]
        if missing := [name for name in columns if name not in header]:
            raise VividMedError(
                f"{path}: column {missing[0]!r} is missing; the table has {', '.join(header) or 'none'}"
            )
        reader.fieldnames = header
        return [{name: (value or "").strip() for name, value in row.items() if name} for row in reader]
    except csv.Error as error:
        raise VividMedError(f"{path}: not a readable table ({error}); export it again") from error


def column(rows: list[dict[str, str]], key: str, value: str) -> dict[str, str]:
    """One column of a table by another one, which must be unique.

    Raises:
        VividMedError: A key occurs twice with different values.
    """
    result: dict[str, str] = {}
    for row in rows:
        if result.setdefault(row[key], row[value]) != row[value]:
            raise VividMedError(
                f"{key} {row[key]!r} has two values of {value}; keep one row of it in the table"
            )
    return result
