"""Merge a low-rank adapter into its base model: one model that needs no PEFT, with its card and provenance.

    vividmed merge outputs/vlm_lora --output outputs/vlm_merged

An adapter that was trained on quantised weights is merged into the base model without quantisation.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed merge``."""
    adapter = parser.add_argument("adapter", help="folder or Hub id of the adapter")
    output = parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="folder to write, empty or new"
    )
    base = parser.add_argument(
        "--base-model",
        metavar="PLACE",
        help="folder or Hub id of the base model (default: the one that the adapter names)",
    )
    for place in (adapter, output, base):
        place.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument("--revision", help="branch, tag or commit of the adapter on the Hub")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="precision of the merged weights (default: that of the base model)",
    )


def run(args: argparse.Namespace) -> None:
    """Merge and save."""
    from vividmed.training.adapters.merging import save_merged_model

    save_merged_model(
        args.adapter, args.output, base_model=args.base_model, revision=args.revision, dtype=args.dtype
    )
    print(f"merged model: {args.output}")
