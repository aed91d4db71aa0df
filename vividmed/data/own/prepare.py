"""Prepares one's own data by the engine of all data sets, and names the rows of its table that could not be used."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vividmed.data.own.listing import OwnData, RefusedRow
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.prepare import PreparationResult, prepare_dataset
from vividmed.files import write_atomically

REFUSED_FILE = "refused_rows.csv"


@dataclass(frozen=True, kw_only=True)
class OwnResult:
    """Result of preparing one's own data.

    Attributes:
        prepared: result of the engine.
        refused: rows of the table that are in no prepared row: those that could not be understood, and those whose
            images could not be read.
    """

    prepared: PreparationResult
    refused: tuple[RefusedRow, ...]


def prepare_own(
    data: OwnData, output: Path, *, processing: Processing | None = None, **options: Any
) -> OwnResult:
    """Prepare one's own data.

    Args:
        data: what a reader of a layout found.
        output: folder of the prepared data set.
        processing: choices about the images.
        **options: of :func:`~vividmed.data.preparation.prepare.prepare_dataset`.

    Raises:
        VividMedError: as :func:`~vividmed.data.preparation.prepare.prepare_dataset`.
    """
    prepared = prepare_dataset(data, data.listing.origin, output, processing=processing, **options)
    refused = refused_rows(data, prepared)
    if data.listing.table_rows:
        write_refused(output / REFUSED_FILE, refused)
    return OwnResult(prepared=prepared, refused=refused)


def refused_rows(data: OwnData, prepared: PreparationResult) -> tuple[RefusedRow, ...]:
    """Rows of the table without a prepared row, in order."""
    listing = data.listing
    unread = [
        RefusedRow(number, listing.image_column, prepared.failed[case], file)
        for case, places in listing.table_rows.items()
        if case in prepared.failed
        for file, number in places
    ]
    return tuple(sorted([*listing.refused, *unread], key=lambda row: (row.file, row.row)))


def write_refused(path: Path, refused: tuple[RefusedRow, ...]) -> None:
    """Write the table of refused rows; it has only a header if there are none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("file", "row", "column", "reason"))
    writer.writerows((row.file, row.row, row.column, row.reason) for row in refused)
    write_atomically(path, stream.getvalue())
