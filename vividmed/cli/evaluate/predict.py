"""Ask a model about the rows of a data set and write down its answers.

    vividmed evaluate predict outputs/vlm --task vqa --output predictions/vlm
    vividmed evaluate predict outputs/grg --task grounded-report --dataset FOLDER_OR_HUB_ID --output predictions/grg
    accelerate launch -m vividmed.cli.main evaluate predict outputs/vlm --task report --output predictions/reports

Without --dataset the held-out split of the embedded sample is asked. Safe to interrupt: run the command again to
resume. Score the folder with `vividmed evaluate score`. See docs/metrics.md.
"""

import argparse
import os
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.parser import CommandParser, positive_int
from vividmed.console import BAD_INPUT, DONE
from vividmed.errors import VividMedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed evaluate predict``."""
    model = parser.add_argument("model", help="folder or repository of a model or an adapter")
    model.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--task",
        required=True,
        choices=("vqa", "report", "ground", "grounded-report"),
        help="what to ask for",
    )
    output = parser.add_argument("--output", type=Path, required=True, help="folder of the predictions")
    output.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--dataset",
        help="folder or repository of prepared rows, or a small table (default: the embedded sample)",
    )
    parser.add_argument("--split", default="test", help="split to ask about (default: test)")
    parser.add_argument("--max-rows", "--max_rows", type=positive_int, help="ask only about the first N rows")
    parser.add_argument(
        "--protocol",
        default="default",
        help="default, published, a set such as slake or mimic-cxr, or a YAML file (default: default)",
    )
    parser.add_argument(
        "--batch-size",
        "--batch_size",
        type=positive_int,
        default=4,
        help="items answered together (default: 4)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the accelerator, if there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights (default: float32)",
    )


def run_arguments(arguments: list[str]) -> int:
    """Predict with as many processes as the launcher was asked for."""
    parser = CommandParser("vividmed evaluate predict", __doc__)
    add_arguments(parser)
    args = parser.parse_args(arguments)
    from vividmed.orphans import end_with_launcher

    end_with_launcher()

    # Imports that take seconds, in which the launcher may already end.
    from vividmed.training.launching import report_to_launcher, start_processes, use_all_cores

    start_processes(["-m", "vividmed.cli.main", "evaluate", "predict"], arguments)
    use_all_cores()
    try:
        run(args)
    except VividMedError as error:
        report_to_launcher(error)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        return BAD_INPUT  # the first process says why
    return DONE


def run(args: argparse.Namespace) -> None:
    """Predict, and say how many items were done."""
    from accelerate import PartialState

    from vividmed.inference.evaluation import predict_dataset

    new, done = predict_dataset(
        args.model,
        args.output,
        task=args.task,
        dataset=args.dataset,
        split=args.split,
        max_rows=args.max_rows,
        protocol=args.protocol,
        batch_size=args.batch_size,
        device=args.device,
        dtype=args.dtype,
    )
    if PartialState().is_main_process:
        earlier = f", {done} were there" if done else ""
        print(
            f"{args.output}: {new} items predicted{earlier}; score them with: vividmed evaluate score {args.output}"
        )
