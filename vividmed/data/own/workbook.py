"""Sheets of Excel workbooks as records."""

import io
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vividmed.data.own.table_content import (
    SPLIT_COLUMN,
    TITLE_ROWS,
    IsHeader,
    TableContent,
    UnreadableCell,
    table_of_rows,
    unique_names,
)
from vividmed.data.raw.splits import official_split
from vividmed.errors import VividMedError

_ZEROS = re.compile(r"0+")
_LARGEST_UNPACKED = 2**30
_UNSAVED = UnreadableCell(
    "is a formula without a saved result; open the file in a spreadsheet program and save it, or write the value"
)


def read_workbook(path: Path, content: bytes, is_header: IsHeader, *, sheet: str | None) -> TableContent:
    """Read the sheet with a recognised header, or all of them if they are named after splits.

    Numbers whose format pads them with zeros keep these zeros, and merged cells count for every row they cover.

    Args:
        path: of the file, for errors.
        content: of the file.
        is_header: recognises the header of a sheet.
        sheet: name of the sheet to read.

    Raises:
        VividMedError: openpyxl is missing, the file cannot be read, or it is not clear which sheet is meant.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise VividMedError(
            f'{path}: Excel files need openpyxl; run: pip install "vividmed[excel]", or save the table as CSV'
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _LARGEST_UNPACKED:
            raise VividMedError(
                f"{path}: would unpack to {size / 1e9:.1f} GB, more than a table should; save it as CSV"
            )
        book = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
    except VividMedError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise VividMedError(
            f"{path}: is not a readable Excel file ({reason}); save it again, or as CSV"
        ) from error
    sheets = {each.title: each for each in book.worksheets}
    if sheet is not None:
        if sheet not in sheets:
            raise VividMedError(f"{path}: has no sheet {sheet!r}; give one of {', '.join(map(repr, sheets))}")
        chosen = [sheet]
    else:
        chosen = [title for title, each in sheets.items() if any(map(is_header, _first_rows(each)))]
        chosen = [title for title in chosen if sheets[title].sheet_state == "visible"] or chosen
    by_split = len(chosen) > 1 and all(official_split(title) for title in chosen)
    if len(chosen) > 1 and not by_split:
        raise VividMedError(
            f"{path}: the sheets {', '.join(map(repr, chosen))} all look like tables; choose one by --sheet"
        )
    if not chosen:
        chosen = [book.worksheets[0].title] if book.worksheets else []
    if not chosen:
        raise VividMedError(f"{path}: contains no sheet with cells; save the table again")
    unsaved = _unsaved_formulas(content, {title: sheets[title] for title in chosen})
    tables = [
        table_of_rows(
            _rows(sheets[title], unsaved=unsaved.get(title, frozenset())),
            is_header,
            file=title if by_split else "",
            advice="name the surplus columns",
        )
        for title in chosen
    ]
    if not by_split:
        if len(sheets) > 1:
            tables[0].notes.append(f"sheet {chosen[0]!r} of {len(sheets)} is read")
        return tables[0]
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    whole = TableContent(
        (*columns, SPLIT_COLUMN), [], notes=[f"sheets {', '.join(chosen)} are read as splits"]
    )
    for title, table in zip(chosen, tables, strict=True):
        for record in table.records:
            record.cells[SPLIT_COLUMN] = title
        whole.records += table.records
        whole.refused += table.refused
    return whole


def _unsaved_formulas(content: bytes, sheets: Mapping[str, Any]) -> dict[str, set[tuple[int, int]]]:
    """Row and column of the formulas whose results are not in the file: programs that write tables do not compute them."""
    import openpyxl

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        if not any(re.search(rb"<f[ >]", archive.read(name)) for name in names):
            return {}
    formulas = openpyxl.load_workbook(io.BytesIO(content))
    return {
        title: {
            (cell.row, cell.column)
            for row in formulas[title].iter_rows()
            for cell in row
            if cell.data_type == "f" and values[cell.coordinate].value is None
        }
        for title, values in sheets.items()
    }


def _first_rows(sheet: Any) -> Iterator[list[str]]:
    for _, cells in _rows(sheet, last=TITLE_ROWS):
        yield unique_names(cells)


def _rows(
    sheet: Any, last: int | None = None, unsaved: Collection[tuple[int, int]] = ()
) -> Iterator[tuple[int, Sequence[Any]]]:
    replaced: dict[tuple[int, int], Any] = dict.fromkeys(unsaved, _UNSAVED)
    for area in sheet.merged_cells.ranges:
        corner = sheet.cell(area.min_row, area.min_col)
        # Titles run over columns; a value that belongs to several rows runs over rows.
        if area.max_row > area.min_row:
            replaced |= {
                (row, area.min_col): _value(corner) for row in range(area.min_row + 1, area.max_row + 1)
            }
    for number, cells in enumerate(sheet.iter_rows(max_row=last), 1):
        yield number, [replaced.get((number, column), _value(cell)) for column, cell in enumerate(cells, 1)]


def _value(cell: Any) -> Any:
    value = cell.value
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and _ZEROS.fullmatch(cell.number_format or "")
    ):
        return f"{round(value):0{len(cell.number_format)}d}"
    return value
