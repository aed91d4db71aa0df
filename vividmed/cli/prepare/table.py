"""Turn a table of images with questions, answers or reports into a data set to train on.

    vividmed prepare table questions.csv --images scans --output data/questions
    vividmed prepare table reports.xlsx --images scans --modality CT --dry-run

The table is CSV, TSV, JSON Lines or Excel. Columns are found by common names (image, question, answer, report, patient,
split) or named by the arguments below. A cell may name several images, or contain several questions and answers. Images
are 2D images, NIfTI files, DICOM files or folders with a DICOM series. Rows that cannot be used are printed and listed
in refused_rows.csv. Exit status: 0 if all rows are prepared, 1 if some were refused, 2 for wrong arguments or input. See
docs/own_data.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shtab import FILE

from vividmed.cli.prepare.own_data import add_images, add_output, prepare
from vividmed.errors import VividMedError

if TYPE_CHECKING:
    from vividmed.data.own.table_rows import TableOptions

_WORDS = {
    "image": "the names of images",
    "question": "questions",
    "answer": "answers",
    "report": "reports",
    "patient": "patients, who decide on the splits",
    "split": "splits (train, validation, test)",
    "id": "ids of the rows",
}
_ROLES = tuple(_WORDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare table``."""
    table = parser.add_argument("table", type=Path, help="CSV, TSV, JSON Lines or Excel file")
    table.complete = FILE  # type: ignore[attr-defined]
    add_images(parser)
    add_columns(parser)
    add_output(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a table is read."""
    columns = parser.add_argument_group("columns, if their names do not tell; 'none' leaves one out")
    for role in _ROLES:
        repeated = "; repeat it for several columns" if role in ("image", "question", "answer") else ""
        columns.add_argument(
            f"--{role}-column", action="append", metavar="NAME", help=f"column of {_WORDS[role]}{repeated}"
        )
    reading = parser.add_argument_group("how the table is read, if that is not clear")
    reading.add_argument("--encoding", help="such as cp1252")
    reading.add_argument("--delimiter", help="character between fields, or tab")
    reading.add_argument("--sheet", help="sheet of an Excel file")
    reading.add_argument("--separator", help="text between several questions in one cell")
    reading.add_argument(
        "--no-grouping",
        action="store_true",
        help="keep rows about the same images apart, instead of joining them",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the table."""
    from vividmed.data.own.table import read_table_listing

    return prepare(
        args,
        "prepare table",
        args.table.name.partition(".")[0],
        lambda: read_table_listing(args.table, args.images, table_options(args)),
    )


def table_options(args: argparse.Namespace) -> "TableOptions":
    """What the arguments say about how the table is read."""
    from vividmed.data.own.modalities import modality_name
    from vividmed.data.own.table_rows import TableOptions

    if args.separator == "":
        raise VividMedError("--separator: is empty; give the text between two questions, or leave it out")
    given = {role: tuple(names) for role in _ROLES if (names := getattr(args, f"{role}_column"))}
    return TableOptions(
        columns=given,
        modality=modality_name(args.modality),
        encoding=args.encoding,
        delimiter=args.delimiter,
        sheet=args.sheet,
        separator=args.separator,
        group=not args.no_grouping,
    )
