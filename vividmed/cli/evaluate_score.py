"""Score a folder of predictions.

    vividmed evaluate score predictions/vlm
    vividmed evaluate score predictions/vlm --metrics text,vqa --compare predictions/base

Prints a table and writes scores.md, scores.csv and scores.json into the folder; with --compare, difference.*, whose
figures are those of the other folder minus those of this one. Intervals are 95 %, by bootstrap over patients. See
docs/metrics.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.parser import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed evaluate score``."""
    folder = parser.add_argument("folder", type=Path, help="folder of predictions")
    folder.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--metrics",
        help="metrics or families, separated by commas, NAME=PLACE for those with weights (default: all without weights)",
    )
    parser.add_argument(
        "--labels", metavar="CSV", help="table of labels of CT-RATE volumes, for the metric radbert"
    )
    compare = parser.add_argument(
        "--compare", type=Path, metavar="FOLDER", help="predictions of another model"
    )
    compare.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--samples", type=positive_int, default=1000, help="bootstrap samples (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Score, write the tables and print one."""
    from vividmed.files import write_atomically
    from vividmed.metrics.predictions import read_predictions
    from vividmed.metrics.scoring import score, score_difference
    from vividmed.metrics.tables import to_csv, to_json, to_markdown

    metrics = None if args.metrics is None else [name.strip() for name in args.metrics.split(",")]
    options = {"samples": args.samples, "seed": args.seed, "labels": args.labels}
    predictions = read_predictions(args.folder)
    if args.compare is None:
        stem, title = "scores", str(args.folder.name)
        scores = score(predictions, metrics, **options)
    else:
        stem, title = "difference", f"{args.compare.name} minus {args.folder.name}"
        scores = score_difference(predictions, read_predictions(args.compare), metrics, **options)
    table = to_markdown(scores, title=title)
    for suffix, text in ((".md", table), (".csv", to_csv(scores)), (".json", to_json(scores))):
        write_atomically(args.folder / f"{stem}{suffix}", text)
    print(table)
