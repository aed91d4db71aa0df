"""Figures of a model on held-out rows: each belongs to the weights that it was measured on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState

from vividmed.files import write_atomically
from vividmed.training.answers import Accuracy
from vividmed.training.callbacks import SampleAnswers
from vividmed.training.runs.run_folder import BASELINE
from vividmed.training.trainer import VividMedTrainer

_NOT_FIGURES = ("per_second", "runtime", "epoch")


@dataclass(frozen=True)
class Measurement:
    """Figures measured on held-out rows.

    Attributes:
        figures: losses and Dice, by name.
        accuracy: of questions that have one right answer, by kind of question.
        answers: to single rows: ``id``, ``question``, ``reference``, ``answer``, and ``places`` where it grounds.
        rows: hash of the ids of the evaluation rows, so that only like is compared with like.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)
    answers: Sequence[Mapping[str, Any]] = ()
    rows: str = ""

    @classmethod
    def of_evaluation(
        cls,
        evaluation: Mapping[str, float],
        *,
        accuracy: Mapping[str, Accuracy] | None = None,
        loss: str = "loss",
    ) -> "Measurement":
        """Figures of a Trainer's evaluation.

        Args:
            evaluation: the Trainer's metrics, ``eval_loss`` and others.
            accuracy: accuracy on closed questions, measured on the same weights.
            loss: what the loss is called.
        """
        figures = {}
        for name, value in evaluation.items():
            measured = name.removeprefix("eval_")
            if measured != name and not measured.endswith(_NOT_FIGURES):
                measured = loss if measured == "loss" else measured.replace("_", " ").replace("/", " of ")
                figures[f"evaluation {measured}"] = float(value)
        return cls(figures, accuracy or {})

    @classmethod
    def load(cls, path: Path) -> "Measurement | None":
        """Read a saved measurement; None where there is none that can be read."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            accuracy = {kind: Accuracy(**counts) for kind, counts in values["accuracy"].items()}
            return cls(values["figures"], accuracy, values["answers"], values["rows"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def numbers(self) -> dict[str, float]:
        """All figures as numbers, accuracies as shares."""
        shares = {
            f"accuracy of {kind} questions": accuracy.correct / accuracy.total
            for kind, accuracy in self.accuracy.items()
            if accuracy.total
        }
        return {**self.figures, **shares}

    def table(self, before: "Measurement | None") -> dict[str, str]:
        """Each figure in words, with that before training where the same was measured.

        Args:
            before: of the untrained model, on any rows.
        """
        comparable = before if before is not None and before.rows == self.rows else Measurement()
        figures = {}
        for name, value in self.figures.items():
            start = f"{comparable.figures[name]:.3f} before, " if name in comparable.figures else ""
            figures[name] = f"{start}{value:.3f} after"
        for kind, accuracy in self.accuracy.items():
            earlier = comparable.accuracy.get(kind)
            same = earlier is not None and earlier.total == accuracy.total
            figures[f"held-out {kind} questions right"] = f"{f'{earlier} before, ' * same}{accuracy} after"
        return figures

    def report(self, before: "Measurement | None", log: Sequence[Mapping[str, Any]]) -> str:
        """Text that a run prints at its end.

        Args:
            before: of the untrained model.
            log: of the training.
        """
        lines = ["", *(f"{name}: {value}" for name, value in self.table(before).items())]
        losses = [line["loss"] for line in log if "loss" in line]
        if losses:
            lines.append(
                f"training loss: {losses[0]:.3f} in the first log line, {losses[-1]:.3f} in the last"
            )
        earlier = {} if before is None else {answer["id"]: answer["answer"] for answer in before.answers}
        for answer in self.answers:
            lines += [
                "",
                f"held-out image {answer['id']}",
                f"  question:  {answer['question']}",
                f"  reference: {answer['reference']}",
            ]
            if answer["id"] in earlier:
                lines.append(f"  before:    {earlier[answer['id']]}")
            lines.append(f"  after:     {answer['answer']}")
            lines += [f"    {place}" for place in answer.get("places", ())]
        return "\n".join(lines)


class Measuring(TrainerCallback):
    """Measures the untrained model once, and at the end the weights that stay in the folder.

    Args:
        trainer: the stage's.
        evaluation_rows: the held-out rows; None measures nothing.
        measure: makes a measurement of the Trainer's evaluation metrics and of the model as it is.
        samples: the callback that answers rows at each evaluation; it must be added before this one.
        always_at_start: measure the untrained model even if ``eval_on_start`` does not ask for it.
    """

    def __init__(
        self,
        trainer: VividMedTrainer,
        *,
        evaluation_rows: Dataset | None,
        measure: Callable[[Mapping[str, float]], Measurement],
        samples: SampleAnswers | None,
        always_at_start: bool,
    ):
        self.trainer = trainer
        self.evaluation_rows = evaluation_rows
        self.samples = samples
        self.always_at_start = always_at_start
        self._measure = measure
        self._newest: tuple[int, dict[str, float]] | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        asked = self.always_at_start and not args.eval_on_start
        if asked and self.evaluation_rows is not None and state.global_step == 0:
            # Now the model is placed and wrapped for training.
            self.trainer.evaluate()

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._newest = state.global_step, dict(metrics or {})
        if state.global_step == 0:
            measured = self._measured(self._newest[1])
            if state.is_world_process_zero:
                write_atomically(args.folder / BASELINE, json.dumps(asdict(measured), indent=1))

    @property
    def final_step(self) -> int:
        """The step whose weights stay: the last one, or the best one where that was loaded."""
        state = self.trainer.state
        best = state.best_model_checkpoint
        if self.trainer.args.load_best_model_at_end and best is not None and Path(best).is_dir():
            return state.best_global_step
        return state.global_step

    def of_final_weights(self) -> Measurement:
        """Measure the model as it is after training; every process takes part.

        The last evaluation of the training serves if it was of these very weights.
        """
        if self.evaluation_rows is None:
            return Measurement()
        step, evaluation = self._newest or (-1, {})
        if step != self.trainer.state.global_step or self.trainer.args.load_best_model_at_end:
            with _at_step(self.trainer.state, self.final_step):
                evaluation = self.trainer.evaluate()
        return self._measured(evaluation)

    def of_start(self, checkpoint: Path | None) -> Measurement | None:
        """The measurement before training, also of the run that a checkpoint in another folder comes from."""
        folders = [self.trainer.args.folder, *([] if checkpoint is None else [checkpoint.parent])]
        found = (Measurement.load(folder / BASELINE) for folder in folders)
        return next((measured for measured in found if measured is not None), None)

    def _measured(self, evaluation: Mapping[str, float]) -> Measurement:
        measured = self._measure(evaluation)
        answers = () if self.samples is None else self.samples.latest
        return Measurement(measured.figures, measured.accuracy, answers, _hash_of_ids(self.evaluation_rows))


@contextmanager
def _at_step(state: TrainerState, step: int) -> Iterator[None]:
    """Label what is logged with the step that the weights come from."""
    reached, state.global_step = state.global_step, step
    try:
        yield
    finally:
        state.global_step = reached


def _hash_of_ids(rows: Any) -> str:
    ids = "\n".join(map(str, rows.select_columns(["id"])["id"]))
    return hashlib.sha256(ids.encode()).hexdigest()
