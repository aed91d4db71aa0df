"""Score a folder of predictions.

    vividmed evaluate score predictions/vlm
    vividmed evaluate score predictions/vlm --metrics text,vqa,judge=http://localhost:8000/v1
    vividmed evaluate score predictions/vg --plots --card outputs/vg
    vividmed evaluate score predictions/base --compare predictions/vlm

Prints a table and writes scores.md, scores.csv and scores.json into the folder; with --compare, difference.*, whose
figures are those of the other folder minus those of this one. Intervals are 95 %, by bootstrap over patients. See
docs/metrics.md for the metrics, and for those that need weights of yours.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.parser import positive_int, random_seed
from vividmed.errors import VividMedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed evaluate score``."""
    folder = parser.add_argument("folder", type=Path, help="folder of predictions")
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
    card = parser.add_argument(
        "--card", type=Path, metavar="MODEL", help="put the table on the card of this model's folder"
    )
    parser.add_argument(
        "--plots",
        action="store_true",
        help="draw plots, and a page with the best, median and worst cases",
    )
    parser.add_argument(
        "--samples", type=positive_int, default=1000, help="bootstrap samples (default: 1000)"
    )
    parser.add_argument("--seed", type=random_seed, default=0, help="seed of the bootstrap (default: 0)")
    for place in (folder, compare, card):
        place.complete = DIRECTORY  # type: ignore[attr-defined]


def run(args: argparse.Namespace) -> None:
    """Score, write the tables and print one."""
    from vividmed.files import write_atomically
    from vividmed.metrics.predictions import read_predictions, read_run, unfinished
    from vividmed.metrics.reporting.tables import to_csv, to_json, to_markdown
    from vividmed.metrics.scoring import score, score_difference

    if args.compare is not None and (args.card or args.plots):
        raise VividMedError("--compare gives differences: leave --card and --plots out")
    metrics = None if args.metrics is None else [name.strip() for name in args.metrics.split(",")]
    options = {"samples": args.samples, "seed": args.seed, "labels": args.labels}
    predictions, run_facts = read_predictions(args.folder), read_run(args.folder)
    notes = [unfinished(args.folder, predictions)]
    if args.compare is None:
        stem, title = "scores", args.folder.resolve().name
        scores = score(predictions, metrics, **options)
    else:
        stem, title = "difference", f"{args.compare.resolve().name} minus {args.folder.resolve().name}"
        others = read_predictions(args.compare)
        notes.append(unfinished(args.compare, others))
        scores = score_difference(predictions, others, metrics, **options)
    notes = list(filter(None, notes))
    table = to_markdown(scores, title=title, run=run_facts, notes=notes)
    for suffix, text in ((".md", table), (".csv", to_csv(scores)), (".json", to_json(scores))):
        write_atomically(args.folder / f"{stem}{suffix}", text)
    print(table)
    if args.plots:
        from vividmed.inference.task_rows import rows_of_run
        from vividmed.metrics.reporting.gallery import write_gallery
        from vividmed.metrics.reporting.plots import draw_plots

        for path in draw_plots(predictions, args.folder):
            print(path)
        print(write_gallery(predictions, args.folder, rows_of_run(run_facts)))
    if args.card is not None:
        from vividmed.hub.card_evaluation import add_evaluation, figures_for_card

        task = predictions[0].task
        dataset, split = str(run_facts.get("dataset", "data set")), str(run_facts.get("split", "test"))
        section = to_markdown(scores, title=f"Evaluation of task {task}", run=run_facts, notes=notes)
        print(
            add_evaluation(
                args.card, section, figures_for_card(scores.figures), task=task, dataset=dataset, split=split
            )
        )
