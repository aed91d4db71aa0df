"""Stage ``align-isam``: the instance segmenter learns the targets of the taxonomy from boxes."""

from typing import Any

from stages.alignment import ARGUMENTS, train
from stages.stage import Stage
from vividmed.training.grounding_trainer import AlignmentTrainer


class AlignIsamTrainer(AlignmentTrainer):
    """Trains the instance segmenter alone, on whole images of localization rows with boxes."""


def run(*arguments: Any) -> None:
    """Train the stage; see :func:`stages.alignment.train`."""
    train("align-isam", "box", AlignIsamTrainer, *arguments)


STAGE = Stage(run, ARGUMENTS)
