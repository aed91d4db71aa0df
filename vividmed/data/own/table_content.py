"""Rows of cells as records with named columns, whatever file they come from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vividmed.data.own.cells import cell_text
from vividmed.data.own.listing import RefusedRow

IsHeader = Callable[[Sequence[str]], bool]

SPLIT_COLUMN = "split (sheet)"
"""Column added where each sheet of a workbook, or each list of a JSON file, is one split."""

TITLE_ROWS = 30
"""Rows above the header, such as a title and remarks, that are passed over at most."""


@dataclass(frozen=True)
class UnreadableCell:
    """Stands for the content of a cell that is not known; the reason says what to do."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Record:
    """One row: its number as a spreadsheet shows it (or the line of a JSON Lines file), its cells, and its sheet."""

    number: int
    cells: dict[str, Any]
    file: str = ""


@dataclass
class TableContent:
    """Rows of a table.

    Attributes:
        columns: names of the columns, unique.
        records: rows that have as many fields as the header.
        refused: the other rows.
        notes: how the file was read.
    """

    columns: tuple[str, ...]
    records: list[Record]
    refused: list[RefusedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unique_names(header: Iterable[Any]) -> list[str]:
    """Names of columns, with a number added to those that repeat another one; nameless columns stay empty."""
    names: list[str] = []
    for cell in header:
        name = " ".join(cell_text(cell).split())
        number = 2
        unique = name
        while name and unique in names:
            unique, number = f"{name} {number}", number + 1
        names.append(unique)
    return names


def table_of_rows(
    rows: Iterable[tuple[int, Sequence[Any]]], is_header: IsHeader, *, file: str = "", advice: str = ""
) -> TableContent:
    """Make records of rows of cells.

    Args:
        rows: number and cells of each row.
        is_header: recognises the header among the first rows; without one the first row is taken.
        file: name that refused rows give.
        advice: remedy for rows with too many fields.
    """
    iterator = iter(rows)
    above: list[tuple[int, Sequence[Any]]] = []
    header: list[str] | None = None
    for number, cells in iterator:
        if not any(map(cell_text, cells)):
            continue
        above.append((number, cells))
        if is_header(unique_names(cells)):
            header, above = unique_names(cells), []
            break
        if len(above) == TITLE_ROWS:
            break
    if header is None:
        if not above:
            return TableContent((), [])
        header, above = unique_names(above[0][1]), above[1:]
    while header and not header[-1]:
        header.pop()
    rows_below = [
        (number, list(cells)) for number, cells in _chain(above, iterator) if any(map(cell_text, cells))
    ]
    if rows_below and all(
        len(cells) == len(header) + 1 and cell_text(cells[0]) == str(place)
        for place, (_, cells) in enumerate(rows_below, 1)
    ):
        header = ["", *header]  # numbers of rows that R writes without a name in the header
    table = TableContent(tuple(filter(None, header)), [])
    repeats = 0
    for number, values in rows_below:
        if cell_text(values[0]) == header[0] and unique_names(values)[: len(header)] == header:
            repeats += 1
            continue
        if any(map(cell_text, values[len(header) :])):
            reason = f"has {len(values)} fields but the header has {len(header)}; {advice}"
            table.refused.append(RefusedRow(number, "", reason, file))
            continue
        values += [None] * (len(header) - len(values))
        table.records.append(Record(number, {n: v for n, v in zip(header, values, strict=False) if n}, file))
    if repeats:
        table.notes.append(
            f"the header is repeated in {repeats} further row{'s' * (repeats > 1)}, which are passed over"
        )
    return table


def _chain(above: list[tuple[int, Sequence[Any]]], rest: Iterator[tuple[int, Sequence[Any]]]) -> Any:
    yield from above
    yield from rest
