"""Turn a data set in nnU-Net's layout into a data set to train on.

    vividmed prepare nnunet Dataset001_Liver --output data/liver
    vividmed prepare nnunet Dataset001_Liver --reports reports.csv --output data/liver --map "tumour=liver tumor"

dataset.json (version 1 or 2) names channels and labels; regions may overlap. Images are in imagesTr, label maps in
labelsTr; imagesTs with labelsTs is the test split. With a table or folder of reports (reports.csv in the folder by
default), phrases that name what is segmented are marked, and the data set has two kinds of rows: for the stage vg, and for
the stage grg. Exit status: 0 if all cases are prepared, 1 if some failed, 2 for wrong arguments or input. See
docs/own_data.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shtab import DIRECTORY, FILE

from vividmed.cli.prepare.own_data import add_labels, add_output, prepare, use_labels
from vividmed.errors import VividMedError

if TYPE_CHECKING:
    from vividmed.data.own.listing import OwnListing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare nnunet``."""
    folder = parser.add_argument("folder", type=Path, help="folder with dataset.json")
    folder.complete = DIRECTORY  # type: ignore[attr-defined]
    reports = parser.add_argument(
        "--reports", type=Path, metavar="FILE", help="table of reports by case, or folder with CASE.txt files"
    )
    reports.complete = FILE  # type: ignore[attr-defined]
    add_labels(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare the folder."""
    from vividmed.data.own.nnunet import read_nnunet_listing
    from vividmed.data.own.reports import find_reports

    renames = use_labels(args)
    if args.reports is not None and not args.reports.exists():
        raise VividMedError(f"--reports {args.reports}: no such file or folder; check the path")
    found: list[OwnListing | None] = []

    def read() -> "OwnListing":
        listing, reports = read_nnunet_listing(
            args.folder,
            renames=renames,
            modality=args.modality,
            reports=args.reports or find_reports(args.folder),
        )
        found.append(reports)
        return listing

    name = args.folder.absolute().name
    return prepare(args, "prepare nnunet", name, read, read_reports=lambda: found[0])
