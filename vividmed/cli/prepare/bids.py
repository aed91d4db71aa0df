"""Turn a BIDS data set with masks among its derivatives into a data set to train on.

    vividmed prepare bids FOLDER --output data/lesions --map "lesion=stroke lesion"

Files named ..._label-<name>_mask.nii.gz are masks, ..._dseg.nii.gz label maps whose values a _dseg.tsv names. A mask
belongs to the images of its subject and session that have its grid. participants.tsv may have a column split. Exit
status: 0 if all images are prepared, 1 if some failed, 2 for wrong arguments or input. See docs/own_data.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.prepare.own_data import add_labels, add_output, prepare, use_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare bids``."""
    folder = parser.add_argument("folder", type=Path, help="folder of the BIDS data set")
    folder.complete = DIRECTORY  # type: ignore[attr-defined]
    add_labels(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare the folder."""
    from vividmed.data.own.bids import read_bids_listing

    renames = use_labels(args)
    return prepare(
        args,
        "prepare bids",
        args.folder.absolute().name,
        lambda: read_bids_listing(args.folder, renames=renames, modality=args.modality),
    )
