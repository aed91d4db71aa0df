"""Convert a published VividMed adapter, of any of its three stages, into the format of this package.

    vividmed convert ADAPTER --base FOLDER --output FOLDER [--merge]
        [--sam-checkpoint FILE] [--isam-checkpoint FILE]

The base is what `vividmed build --cogvlm` wrote. Adapters with segmenters also need the checkpoints in which these were
aligned, which contain what the adapter lacks. Safe to interrupt: run the command again to resume. See docs/weights.md.
"""

import argparse
from functools import partial

from shtab import DIRECTORY, FILE

from vividmed.cli.build import add_making, add_output
from vividmed.cli.parser import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed convert``."""
    adapter = parser.add_argument("adapter", help="folder or Hub id of the published adapter")
    base = parser.add_argument(
        "--base", required=True, metavar="PLACE", help="folder or Hub id of its base model"
    )
    output = add_output(parser)
    parser.add_argument(
        "--merge", action="store_true", help="write one model without PEFT instead of an adapter"
    )
    for place in (adapter, base, output):
        place.complete = DIRECTORY  # type: ignore[attr-defined]
    for name, what in (("sam", "semantic"), ("isam", "instance")):
        file = parser.add_argument(
            f"--{name}-checkpoint",
            metavar="FILE",
            help=f"checkpoint in which the {what} segmenter was aligned (Lightning, with state_dict)",
        )
        file.complete = FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--stage",
        type=int,
        choices=(1, 2, 3),
        help="which of the released adapters it is; the card then gives what is known of its data and figures",
    )
    parser.add_argument(
        "--segmenter-heads",
        type=positive_int,
        metavar="N",
        help="attention heads of the segmenters (default: of 64 channels each)",
    )
    add_making(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, report, and publish if asked."""
    from vividmed.weights.convert import ConvertOptions, convert_adapter
    from vividmed.weights.publishing import into_output

    options = ConvertOptions(
        adapter=args.adapter,
        base=args.base,
        merge=args.merge,
        sam_checkpoint=args.sam_checkpoint,
        isam_checkpoint=args.isam_checkpoint,
        stage=args.stage,
        segmenter_heads=args.segmenter_heads,
        dtype=args.dtype,
        licence=args.licence,
        allow_partial=args.allow_partial,
    )
    into_output(args.output, args.push_to_hub, partial(convert_adapter, options), say=print)
