"""Turn a COCO file with boxes, polygons or run-length encoded masks into a data set to train on.

    vividmed prepare coco annotations.json --images images --modality X-ray --output data/fractures

Segmentations become masks, the other annotations boxes. Categories without an annotation in an image are absent there,
unless --partly-annotated says otherwise. An image may state its patient ('patient_id'), 'split' and 'modality'. Exit
status: 0 if all images are prepared, 1 if some failed, 2 for wrong arguments or input. See docs/own_data.md.
"""

import argparse
from pathlib import Path

from shtab import FILE

from vividmed.cli.prepare.own_data import add_images, add_labels, add_output, prepare, use_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare coco``."""
    file = parser.add_argument("file", type=Path, help="JSON file with images, annotations and categories")
    file.complete = FILE  # type: ignore[attr-defined]
    add_images(parser)
    parser.add_argument(
        "--partly-annotated",
        action="store_true",
        help="images may contain more than was annotated, so that nothing is absent",
    )
    add_labels(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare the file."""
    from vividmed.data.own.coco import read_coco_listing

    renames = use_labels(args)
    return prepare(
        args,
        "prepare coco",
        args.file.name.partition(".")[0],
        lambda: read_coco_listing(
            args.file,
            args.images,
            renames=renames,
            modality=args.modality,
            partly_annotated=args.partly_annotated,
        ),
    )
