"""From a command line to a stage's run."""

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import Any

from vividmed.errors import VividMedError
from vividmed.files import packaged_folder
from vividmed.training.arguments import DataArguments, StageArguments
from vividmed.training.parser import StageParser
from vividmed.training.stages.alignment import AlignIsamStage, AlignSamStage
from vividmed.training.stages.grounding import GrgStage, VgStage
from vividmed.training.stages.stage import Stage, StageResult, run_stage
from vividmed.training.stages.vlm import VlmStage

CONFIGS = packaged_folder("stages/configs")
STAGES: dict[str, type[Stage]] = {
    stage.name: stage for stage in (AlignSamStage, AlignIsamStage, VgStage, VlmStage, GrgStage)
}


def parse(arguments: list[str]) -> tuple[Any, ...]:
    """Read command line and YAML; without data of one's own and a file the stage's tiny settings apply.

    Returns:
        ``StageArguments`` and the dataclasses of the stage.
    """
    early = _ahead(arguments)
    if early.stage is not None and early.stage not in STAGES:
        nearest = difflib.get_close_matches(early.stage, STAGES, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(STAGES)}"
        raise VividMedError(f"--stage {early.stage}: unknown stage; {hint}")
    stage = STAGES[early.stage or "vlm"]
    parser = StageParser((StageArguments, *stage.arguments()), description="Train a stage of VividMed.")
    parser.add_argument("--config", type=Path, help="YAML file with any of these arguments.")
    config = early.config
    if config is None and early.stage is not None:
        tiny = early.dataset_name is None and early.mixture is None
        name = early.stage.replace("-", "_")
        config = CONFIGS / (f"{name}_tiny.yaml" if tiny else f"{name}.yaml")
    parsed = parser.parse(arguments, config, output_dir=f"outputs/{early.stage}")
    for group in parsed:
        if not isinstance(group, DataArguments) or group.mixture is None or config is None:
            continue
        if early.config is None and early.mixture is None:
            # Settings that nobody named must not put the published mixture in the place of one's own data.
            group.mixture = None
        elif early.mixture is None:
            # A configuration names its mixture by the way from its own folder.
            beside = config.parent / group.mixture
            group.mixture = str(beside) if beside.is_file() else group.mixture
    return parsed


def _ahead(arguments: list[str]) -> argparse.Namespace:
    """What decides which settings apply, read before everything else."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("stage", "config", "dataset_name", "mixture"):
        parser.add_argument(
            f"--{name}", f"--{name.replace('_', '-')}", nargs="?", type=Path if name == "config" else str
        )
    return parser.parse_known_args(arguments)[0]


def run(arguments: list[str]) -> StageResult:
    """Run the stage that a command line describes.

    Raises:
        VividMedError: for everything that the user can correct.
    """
    stage_args, *groups = parse(arguments)
    return run_stage(STAGES[stage_args.stage](*groups))


def main(arguments: list[str]) -> int:
    """Run a stage; input that the user can correct ends in one line and status 2."""
    try:
        run(arguments)
    except VividMedError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
