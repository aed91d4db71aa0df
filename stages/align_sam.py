"""Stage ``align-sam``: the segmenter learns the targets of the taxonomy from masks."""

from typing import Any

from stages.alignment import ARGUMENTS, train
from stages.stage import Stage
from vividmed.training.grounding_trainer import AlignmentTrainer


class AlignSamTrainer(AlignmentTrainer):
    """Trains the segmenter alone, on crops of localization rows with masks."""


def run(*arguments: Any) -> None:
    """Train the stage; see :func:`stages.alignment.train`."""
    train("align-sam", "mask", AlignSamTrainer, *arguments)


STAGE = Stage(run, ARGUMENTS)
