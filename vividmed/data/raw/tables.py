"""Tables of original data sets, read strictly: a clear error instead of a wrong value."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from vividmed.data.raw.documents import read_text
from vividmed.errors import VividMedError

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class TableRow(dict[str, str]):
    """A row of a table: column to stripped text, empty where the value is missing.

    Attributes:
        where: The file and the line, as errors name them.
    """

    def __init__(self, values: Mapping[str, str], where: str) -> None:
        super().__init__(values)
        self.where = where


def read_table(path: Path, *columns: str, delimiter: str = ",") -> list[TableRow]:
    """Read a CSV file with a header.

    Every row must have as many fields as the header: one that has more was shifted by an unquoted delimiter, one that
    has fewer was cut off. A missing line break after the last row is legitimate (RFC 4180). Blank lines are skipped.

    Args:
        path: UTF-8 with or without a byte order mark; ``<name>.gz`` or ``<name>.zip`` in its place is read too.
        columns: names that the header must contain.
        delimiter: character between fields.

    Raises:
        VividMedError: The file is missing, is not UTF-8 text, lacks a column, repeats one, or has a malformed row.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    rows: list[TableRow] = []
    start = 1
    try:
        for fields in reader:
            where = f"{path}: line {start}"
            start = reader.line_num + 1
            if not fields:
                continue
            values = [field.strip() for field in fields]
            if header is None:
                header = values
                _check_header(path, header, columns, delimiter)
            elif len(values) != len(header):
                raise VividMedError(
                    f"{where} has {len(values)} fields but the header has {len(header)}; "
                    f"{_remedy(len(values) - len(header), delimiter)}"
                )
            else:
                rows.append(TableRow({n: v for n, v in zip(header, values, strict=True) if n}, where))
    except csv.Error as error:
        raise VividMedError(
            f"{path}: line {start} is not a readable row ({error}); export the table again"
        ) from error
    if header is None:
        raise VividMedError(f"{path}: the table is empty; copy it again")
    return rows


def column(rows: Iterable[TableRow], key: str, value: str) -> dict[str, str]:
    """Map the values of a key column to those of another column.

    Raises:
        VividMedError: A key occurs twice with different values.
    """
    result: dict[str, str] = {}
    for row in rows:
        if result.setdefault(row[key], row[value]) != row[value]:
            raise VividMedError(
                f"{row.where}: {key} {row[key]!r} already has another {value}; keep one row for it in the table"
            )
    return result


def number(row: TableRow, name: str) -> float:
    """A field as a finite number.

    Raises:
        VividMedError: Naming the row and the column.
    """
    return finite(row[name], f"{row.where}: column {name!r}")


def finite(value: object, what: str) -> float:
    """A value as a finite number.

    Args:
        value: number, or text that contains one.
        what: how the error names the value.

    Raises:
        VividMedError: The value is not a number, is NaN, or is infinite.
    """
    try:
        result = (
            float(value) if isinstance(value, str | float | int) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise VividMedError(f"{what} contains {_shortened(value)}; a finite number is needed")
    return result


def _check_header(path: Path, header: list[str], columns: tuple[str, ...], delimiter: str) -> None:
    """A column without a name, such as the index that pandas writes, is allowed and ignored."""
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise VividMedError(
            f"{path}: line 1 names the column {repeated[0]!r} twice; rename or remove one of the columns"
        )
    missing = [name for name in columns if name not in header]
    if not missing:
        return
    for other, name in _DELIMITERS.items():
        if other != delimiter and any(other in field for field in header):
            split = [part.strip(' "') for field in header for part in field.split(other)]
            if missing[0] in split:
                raise VividMedError(
                    f"{path}: fields are separated by {name}, not by {_DELIMITERS.get(delimiter, repr(delimiter))}; "
                    f"save the table with {_DELIMITERS.get(delimiter, repr(delimiter))}"
                )
    listed = ", ".join(repr(name) for name in header[:20])
    raise VividMedError(f"{path}: column {missing[0]!r} is missing; the table has {_shortened(listed, str)}")


def _remedy(surplus: int, delimiter: str) -> str:
    if surplus > 0:
        return f"put quotes around values that contain {delimiter!r}"
    return "the row seems to be cut off; copy the table again"


def _shortened(value: object, show: type | None = None, most: int = 200) -> str:
    shown = str(value) if show is str else repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."
