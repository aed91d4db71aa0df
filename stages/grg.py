"""Stage ``grg``: grounded report generation (published stage 3)."""

from typing import Any

from stages.grounding import ARGUMENTS, train
from stages.stage import Stage
from vividmed.training.grounding_trainer import GroundingTrainer


class GrgTrainer(GroundingTrainer):
    """Trains on grounded reports: their text, and the masks and boxes of their phrases."""


def run(*arguments: Any) -> None:
    """Train the stage; see :func:`stages.grounding.train`."""
    train("grg", "grounded_report", GrgTrainer, *arguments)


STAGE = Stage(run, ARGUMENTS)
