"""Prepares one's own data by the engine of all data sets, and names the rows of its table that could not be used."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vividmed.data.own.listing import OwnData, RefusedRow
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.preparation import PreparationResult
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.data.raw.case import Case, Split
from vividmed.data.raw.splits import assign_splits, divide_patients
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

    If a split would be empty because none of its images can be read, the other patients are divided again.

    Args:
        data: what a reader of a layout found.
        output: folder of the prepared data set.
        processing: choices about the images.
        **options: of :func:`~vividmed.data.preparation.prepare.prepare_dataset`.

    Raises:
        VividMedError: as :func:`~vividmed.data.preparation.prepare.prepare_dataset`.
    """
    prepared = prepare_dataset(data, data.listing.origin, output, processing=processing, **options)
    splits = _divided_again(data, prepared)
    if splits:
        again = data.with_splits(splits)
        prepared = prepare_dataset(again, data.listing.origin, output, processing=processing, **options)
    refused = refused_rows(data, prepared)
    if data.listing.table_rows or refused or (output / REFUSED_FILE).exists():
        write_refused(output / REFUSED_FILE, refused)
    return OwnResult(prepared=prepared, refused=refused)


def _divided_again(data: OwnData, prepared: PreparationResult) -> dict[str, Split]:
    """Splits of the patients whose images can be read, if there would be no rows in one; empty if all is well."""
    cases = [case for case in data.listing.cases if isinstance(case, Case)]
    missing = {split for split, share in data.ratios.items() if share} - set(prepared.facts)
    if not missing or not prepared.failed or any(case.split for case in cases):
        return {}
    readable = {data.patient_key(case) for case in cases if case.id not in prepared.failed}
    planned = assign_splits([(data.patient_key(case), None) for case in cases], ratios=data.ratios)
    if not missing & set(planned.values()):
        return {}
    divided: dict[str, Split] = dict.fromkeys(planned, "train")
    return divided | divide_patients(readable, data.ratios)


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
    writer.writerows((row.file, row.row or "", row.column, row.reason) for row in refused)
    write_atomically(path, stream.getvalue())
