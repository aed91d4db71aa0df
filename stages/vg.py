"""Stage ``vg``: visual grounding (published stage 1)."""

from typing import Any

from stages.grounding import ARGUMENTS, train
from stages.stage import Stage
from vividmed.training.grounding_trainer import GroundingTrainer


class VgTrainer(GroundingTrainer):
    """Trains on localization rows: questions for targets, answered by phrases with masks and boxes."""


def run(*arguments: Any) -> None:
    """Train the stage; see :func:`stages.grounding.train`."""
    train("vg", "localization", VgTrainer, *arguments)


STAGE = Stage(run, ARGUMENTS)
