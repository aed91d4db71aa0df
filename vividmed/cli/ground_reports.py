"""Make grounded reports from images and plain reports, step by step.

    vividmed ground-reports clean    --input data/mine     --output work/clean
    vividmed ground-reports tag      --input work/clean    --output work/tag
    vividmed ground-reports filter   --input work/tag      --output work/filter
    vividmed ground-reports localize --input work/filter   --output work/localize --masks maps
    vividmed ground-reports review   --input work/localize --output work/pages
    vividmed ground-reports rows     --input work/localize --output data/mine-grounded

Each step reads a prepared data set or the folder of an earlier step. Safe to interrupt: run it again to resume. If
nothing changed, it does nothing. `vividmed ground-reports STEP --help` describes a step. See docs/grounded_reports.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import CommandParser, positive_int, seconds, share

TABLES = ("totalsegmentator", "totalsegmentator-mr", "vista3d", "sat", "voxtell")
_STEPS = {
    "clean": "Remove what the images cannot show: comparisons, technique, history. Every change is checked.",
    "tag": "Find phrases that name targets of the taxonomy, by rules or by a language model that the rules check.",
    "filter": "Take the link off phrases that the report calls absent, uncertain or not assessable.",
    "localize": "Find the targets in the images, and check them against the report and against anatomy.",
    "review": "Write pages for readers, or merge the decisions that they have made.",
    "rows": "Write the grounded_report data set with its card.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the steps of ``vividmed ground-reports`` with their arguments."""
    steps = parser.add_subparsers(dest="step", metavar="STEP", parser_class=CommandParser)
    for name, text in _STEPS.items():
        step = steps.add_parser(name, prog=f"{parser.prog} {name}", description=text)
        source = step.add_argument(
            "--input", required=True, metavar="PLACE", help="prepared data set, or folder of an earlier step"
        )
        output = step.add_argument("--output", type=Path, required=True, help="folder to write to")
        for folder in (source, output):
            folder.complete = DIRECTORY  # type: ignore[attr-defined]
        step.add_argument("--limit", type=positive_int, metavar="N", help="use only the first N studies")
        if name in ("clean", "tag", "filter"):
            _add_model(step)
        if name == "localize":
            _add_localizer(step)
        if name == "review":
            _add_review(step)
        if name in ("localize", "review", "rows"):
            step.add_argument(
                "--allow-outside-images",
                action="store_true",
                help="let rows name image files outside the data set's folder",
            )
        if name != "review":
            _add_cluster(step)


def _add_model(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--model",
        help="language model: a name that the endpoint knows, or a transformers model; without it, rules",
    )
    step.add_argument(
        "--endpoint", metavar="URL", help="OpenAI-compatible endpoint, such as http://127.0.0.1:8080/v1"
    )
    step.add_argument(
        "--batch-size", type=positive_int, default=8, metavar="N", help="questions at a time (default: 8)"
    )
    step.add_argument(
        "--max-new-tokens",
        type=positive_int,
        default=2048,
        metavar="N",
        help="longest answer (default: 2048)",
    )
    step.add_argument(
        "--timeout",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="until an answer is complete (default: 300)",
    )
    step.add_argument(
        "--confirm-terms",
        action="append",
        default=[],
        metavar="QUOTE",
        help="the terms of a credentialed data set, to send its reports to a public address; may be repeated",
    )


def _add_localizer(step: argparse.ArgumentParser) -> None:
    way = step.add_mutually_exclusive_group(required=True)
    masks = way.add_argument("--masks", type=Path, metavar="FOLDER", help="label maps or masks of a program")
    masks.complete = DIRECTORY  # type: ignore[attr-defined]
    way.add_argument(
        "--program",
        metavar="COMMAND",
        help="segmentation program, with {image}, {output} and perhaps {targets}",
    )
    boxes = way.add_argument("--boxes", type=Path, metavar="FILE", help="boxes of 2D images as COCO")
    boxes.complete = FILE  # type: ignore[attr-defined]
    way.add_argument(
        "--localizer-model", metavar="MODEL", help="trained model, or run of align-sam or align-isam"
    )
    step.add_argument(
        "--names",
        default="totalsegmentator",
        metavar="TABLE",
        help=f"names of the program: {', '.join(TABLES)} or a JSON file (default: totalsegmentator)",
    )
    step.add_argument(
        "--instances",
        metavar="TARGETS",
        help="targets whose masks become boxes, one around each separate part, such as 'lung nodule,metastasis'",
    )
    step.add_argument(
        "--originals", metavar="PATTERN", help="original images for --program, such as ct/{id}.nii.gz"
    )
    step.add_argument(
        "--least-score",
        type=share,
        metavar="S",
        help="lowest score of a place (default: 0.1 boxes, 0.5 models)",
    )
    sizes = step.add_argument(
        "--organ-sizes",
        type=Path,
        metavar="FILE",
        help="JSON file of plausible volumes in ml, such as those of children (default: adults)",
    )
    sizes.complete = FILE  # type: ignore[attr-defined]
    step.add_argument(
        "--program-timeout", type=seconds, default=3600.0, metavar="SECONDS", help="per image (default: 3600)"
    )


def _add_review(step: argparse.ArgumentParser) -> None:
    decisions = step.add_argument(
        "--decisions",
        type=Path,
        nargs="+",
        metavar="CSV",
        help="merge these decisions instead of writing pages",
    )
    decisions.complete = FILE  # type: ignore[attr-defined]
    step.add_argument(
        "--everything", action="store_true", help="also show what all checks agreed on, for a random control"
    )


def _add_cluster(step: argparse.ArgumentParser) -> None:
    cluster = step.add_argument_group("on several machines (needs vividmed[distributed])")
    cluster.add_argument("--tasks", type=positive_int, metavar="N", help="tasks to divide the shards among")
    cluster.add_argument("--slurm", metavar="PARTITION", help="submit the tasks instead of running them here")
    cluster.add_argument("--time", default="24:00:00", help="time limit of a Slurm job (default: 24:00:00)")
    cluster.add_argument(
        "--memory-gb", type=positive_int, default=16, help="memory of a Slurm job (default: 16)"
    )
    cluster.add_argument(
        "--shard-studies", type=positive_int, metavar="N", help="studies per file (default: 500, rows: 100)"
    )


def run(args: argparse.Namespace) -> int:
    """Run one step."""
    from vividmed.cli.ground_reports_steps import run_command_step
    from vividmed.errors import VividMedError

    if args.step is None:
        raise VividMedError(
            f"vividmed ground-reports: name a step: {', '.join(_STEPS)} (see vividmed ground-reports --help)"
        )
    return run_command_step(args)
