"""Train a stage of VividMed.

    vividmed train --stage vlm
    vividmed train --stage vlm --config vlm.yaml --model_name_or_path FOLDER --dataset_name FOLDER_OR_HUB_ID
    accelerate launch -m vividmed.cli.main train --stage vlm --config vlm.yaml

With --stage alone it trains a tiny model on the embedded sample data, on a CPU, in minutes. See docs/training.md.
"""

import argparse


def run_arguments(arguments: list[str]) -> int:
    """Run a stage as ``stages/train.py`` does; the stages parse their own arguments."""
    from vividmed.orphans import end_with_launcher
    from vividmed.threads import wait_without_spinning

    end_with_launcher()
    wait_without_spinning()

    # Imports that take seconds, in which the launcher may already end.
    from vividmed.training.launching import start_processes
    from vividmed.training.stages.command import main

    start_processes(["-m", "vividmed.cli.main", "train"], arguments)
    return main(arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of all stages, for shell completion; without the libraries of training there are none."""
    try:
        from vividmed.training.settings.arguments import StageArguments
        from vividmed.training.settings.parser import StageParser
        from vividmed.training.stages.command import STAGES
    except ModuleNotFoundError:
        return
    known = parser._option_string_actions
    for stage in STAGES.values():
        for action in StageParser((StageArguments, *stage.arguments()))._actions:
            if action.option_strings and not any(flag in known for flag in action.option_strings):
                parser._add_action(action)
    parser.add_argument(
        "--config", help="YAML file with any of these arguments, or the name of one in the package"
    )
