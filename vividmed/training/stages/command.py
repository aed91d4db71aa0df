"""From a command line to a stage's run."""

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import Any

from vividmed.errors import VividMedError
from vividmed.files import or_packaged, packaged_folder
from vividmed.training.launching import report_to_launcher, use_all_cores
from vividmed.training.settings.arguments import DataArguments, StageArguments
from vividmed.training.settings.parser import StageParser, read_yaml
from vividmed.training.stages.alignment import AlignIsamStage, AlignSamStage
from vividmed.training.stages.finetune import FinetuneStage
from vividmed.training.stages.grounding import GrgStage, VgStage
from vividmed.training.stages.stage import Stage, StageResult, run_stage
from vividmed.training.stages.vlm import VlmStage

CONFIGS = packaged_folder("stages/configs")
STAGES: dict[str, type[Stage]] = {
    stage.name: stage for stage in (AlignSamStage, AlignIsamStage, VgStage, VlmStage, GrgStage, FinetuneStage)
}


def parse(arguments: list[str]) -> tuple[Any, ...]:
    """Read command line and YAML.

    A configuration that is not found where ``--config`` says is looked up among those of the package, so that
    ``--config finetune/vqa_rad.yaml`` works in any folder. Where no file is named, the stage's configuration follows
    from the data: its tiny one for the embedded sample, one for a single data set for ``--dataset_name``, and the
    published one for ``--mixture``.

    Returns:
        ``StageArguments`` and the dataclasses of the stage.

    Raises:
        VividMedError: an argument is unknown, has a wrong value, or cannot be used together with another one.
    """
    early = _ahead(arguments)
    config = None if early.config is None else or_packaged(early.config, "stages/configs")
    values = {} if config is None else read_yaml(config)
    name = values.get("stage") if early.stage is None else early.stage
    if (name is not None or "stage" in values) and str(name) not in STAGES:
        nearest = difflib.get_close_matches(str(name), STAGES, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(STAGES)}"
        raise VividMedError(f"--stage {name}: unknown stage; {hint}")
    stage = STAGES["vlm" if name is None else str(name)]
    parser = StageParser((StageArguments, *stage.arguments()), description="Train a stage of VividMed.")
    parser.add_argument(
        "--config",
        type=Path,
        help="YAML file with any of these arguments, or the name of one in the package, such as vlm_lora.yaml.",
    )
    if config is None and name is not None:
        published, own, tiny = stage.configurations
        path = published if early.mixture is not None else own if early.dataset_name is not None else tiny
        config = CONFIGS / f"{path.format(name.replace('-', '_'))}.yaml"
    parsed = parser.parse(arguments, config, output_dir=f"outputs/{name}")
    for group in parsed:
        if isinstance(group, DataArguments) and group.mixture is not None and early.mixture is None:
            # A configuration names its mixture relative to its own folder.
            relative = config.parent / group.mixture if config is not None else Path(group.mixture)
            group.mixture = str(relative) if relative.is_file() else group.mixture
    return parsed


def _ahead(arguments: list[str]) -> argparse.Namespace:
    """Arguments that decide which settings apply, read before all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("stage", "config", "dataset_name", "mixture"):
        parser.add_argument(
            f"--{name}", f"--{name.replace('_', '-')}", nargs="?", type=Path if name == "config" else str
        )
    return parser.parse_known_args(arguments)[0]


def run(arguments: list[str]) -> StageResult:
    """Train the stage that a command line describes; ``run(["--stage", "vlm"])`` is the shortest one.

    Args:
        arguments: the command line, without the program.

    Returns:
        The output folder, with the figures of the weights in it.

    Raises:
        VividMedError: for everything that the user can correct.
    """
    stage_args, *groups = parse(arguments)
    use_all_cores()
    return run_stage(STAGES[stage_args.stage](*groups).resolved())


def main(arguments: list[str]) -> int:
    """Run a stage, as ``stages/train.py`` and ``vividmed train`` do.

    Args:
        arguments: the command line, without the program.

    Returns:
        Exit status: 0, or 2 after one line on standard error about something that the user can correct.
    """
    try:
        run(arguments)
    except VividMedError as error:
        report_to_launcher(error)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
