"""Turn a folder of images with metadata.csv or metadata.jsonl into a data set to train on.

    vividmed prepare imagefolder FOLDER --output data/captions --modality X-ray

The metadata file has a column file_name and columns of questions and answers, reports or captions, found by common names
or named by the arguments below. Folders named train, validation and test are the splits; each may have a metadata file of
its own. Exit status: 0 if all rows are prepared, 1 if some were refused, 2 for wrong arguments or input. See
docs/own_data.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.prepare.own_data import add_output, prepare
from vividmed.cli.prepare.table import add_columns, table_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare imagefolder``."""
    folder = parser.add_argument("folder", type=Path, help="folder with a metadata file")
    folder.complete = DIRECTORY  # type: ignore[attr-defined]
    add_columns(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare the folder."""
    from vividmed.data.own.imagefolder import read_imagefolder_listing

    return prepare(
        args,
        "prepare imagefolder",
        args.folder.absolute().name,
        lambda: read_imagefolder_listing(args.folder, table_options(args)),
    )
