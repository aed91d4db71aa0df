"""Check a training run before anything is loaded: arguments, data, model, and the memory that each GPU needs.

    vividmed check --stage vlm --config vlm_lora.yaml --model_name_or_path FOLDER --dataset_name FOLDER_OR_HUB_ID
    vividmed check --stage vlm --config qlora_24gb.yaml --preset 17b --gpu-memory 24GB
    vividmed check --stage vlm --config full_8gpu.yaml --preset 17b --accelerate-config fsdp2.yaml

It takes every argument of `vividmed train`, with the same meaning, and prints the weights that would be trained and an
estimate of peak memory by part. Nothing is read of the weights but their names and shapes. See docs/weights.md.
"""

import argparse
import sys
from pathlib import Path

from vividmed.cli.parser import CommandParser


def run_arguments(arguments: list[str]) -> int:
    """Check a run; the stages parse their own arguments."""
    parser = own_parser()
    own, rest = parser.parse_known_args(arguments)
    # Imports that take seconds.
    from vividmed.training.estimation.checking import (
        CheckOptions,
        Sharding,
        check_run,
        parse_memory,
        read_sharding,
    )
    from vividmed.training.stages.command import STAGES, parse

    try:
        memory = None if own.gpu_memory is None else parse_memory(own.gpu_memory)
    except argparse.ArgumentTypeError as error:
        parser.error(f"--gpu-memory: {error}")
    sharding = Sharding() if own.accelerate_config is None else read_sharding(own.accelerate_config)
    if own.gpus is not None:
        sharding = Sharding(sharding.kind if own.accelerate_config else "ddp", own.gpus)
    on_cpu = own.cpu or any(word.startswith("--use_cpu") for word in rest)
    # A plan for GPUs can be made on a machine without one.
    stage_args, *groups = parse(rest if on_cpu and not own.cpu else [*rest, "--use_cpu"])
    options = CheckOptions(
        gpu_memory=memory, sharding=sharding, preset=own.preset, read_data=not own.skip_data, gpu=not on_cpu
    )
    problems = check_run(STAGES[stage_args.stage](*groups), options, print)
    if problems:
        sys.stdout.flush()
        print(
            f"error: {len(problems)} problem{'s' * (len(problems) > 1)} would stop this run: {problems[0]}",
            file=sys.stderr,
        )
    return 2 if problems else 0


def own_parser() -> CommandParser:
    """Parser of the arguments that a stage does not have."""
    parser = CommandParser("vividmed check", __doc__)
    _add_own_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the check and of all stages, for shell completion."""
    from vividmed.cli.train import add_arguments as add_stage_arguments

    _add_own_arguments(parser)
    add_stage_arguments(parser)


def _add_own_arguments(parser: argparse.ArgumentParser) -> None:
    from vividmed.cli.parser import positive_int

    parser.add_argument(
        "--gpu-memory", metavar="SIZE", help="memory of a GPU, such as 24GB: look for the largest batch"
    )
    parser.add_argument(
        "--accelerate-config",
        type=Path,
        metavar="FILE",
        help="how accelerate divides the run (default: one GPU)",
    )
    parser.add_argument(
        "--gpus", type=positive_int, metavar="N", help="number of GPUs, in place of that of the file"
    )
    parser.add_argument("--cpu", action="store_true", help="the run is one on a CPU")
    parser.add_argument(
        "--preset", choices=("17b", "3b", "1b", "tiny"), help="size of a model that is not there yet"
    )
    parser.add_argument("--skip-data", action="store_true", help="do not look at the rows")
