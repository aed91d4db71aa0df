"""Files that a run writes while it trains: metrics.jsonl, a loss curve, answers to held-out questions."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vividmed.files import write_atomically
from vividmed.training.answers import generate_answers, question_and_reference


class MetricsFile(TrainerCallback):
    """Appends every log line to ``metrics.jsonl`` in the output folder, one JSON object per line.

    A resumed run first drops the lines after its checkpoint, so that the file reads like that of an unbroken run.
    """

    name = "metrics.jsonl"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            keep_steps(self._path(args), state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            append_line(self._path(args), {"step": state.global_step, "time": round(time.time(), 3), **logs})

    def _path(self, args: TrainingArguments) -> Path:
        return Path(args.output_dir) / self.name


class LossCurve(TrainerCallback):
    """Draws training and evaluation loss into ``loss_curve.png`` at every evaluation and at the end."""

    name = "loss_curve.png"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._draw(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._draw(args, state)

    def _draw(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        # Without pyplot: no window system is needed and no global state is left.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss")
        for key, label, style in (("loss", "training", "-"), ("eval_loss", "evaluation", "o-")):
            points = [(line["step"], line[key]) for line in state.log_history if key in line]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        write_atomically(Path(args.output_dir) / self.name, buffer.getvalue())


class EarlyStopping(TrainerCallback):
    """Ends training when the metric for the best model has not improved for a number of evaluations.

    Unlike transformers' callback of this kind it counts from the log, not from a state of its own, so that a resumed run
    ends where an unbroken one does. The evaluation before the first step does not count.

    Args:
        patience: number of evaluations without improvement.
        threshold: smallest improvement that counts.
    """

    def __init__(self, patience: int, *, threshold: float = 0.0):
        self.patience = patience
        self.threshold = threshold

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        name = args.metric_for_best_model or "loss"
        name = name if name.startswith("eval_") else f"eval_{name}"
        sign = 1 if args.greater_is_better else -1
        values: dict[int, float] = {}
        for line in state.log_history:
            if name in line:
                values[line["step"]] = sign * line[name]
            elif any(each.startswith("eval_") for each in line):
                values.setdefault(line["step"], -math.inf)  # it does not give the metric
        values.pop(0, None)
        best, since = -math.inf, 0
        for value in values.values():
            improved = value > best + self.threshold
            best, since = (value, 0) if improved else (best, since + 1)
        if since >= self.patience:
            control.should_training_stop = True


class SampleAnswers(TrainerCallback):
    """Answers a few evaluation questions at each evaluation and appends them to ``samples.jsonl``.

    Every process generates, because the parts of a sharded model need each other; the first one writes.

    Args:
        processor: a ``VividMedProcessor``.
        rows: the questions.
        max_new_tokens: longest answer in tokens.
        context: makes the context to generate in, such as an accelerator's autocast.

    Attributes:
        latest: what was last written of each answer, on the first process.
    """

    name = "samples.jsonl"

    def __init__(
        self,
        processor: Any,
        rows: Sequence[Mapping[str, Any]],
        *,
        max_new_tokens: int,
        context: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.processor = processor
        self.rows = rows
        self.max_new_tokens = max_new_tokens
        self.context = context
        self.latest: list[dict[str, Any]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            keep_steps(Path(args.output_dir) / self.name, state.global_step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        with self.context():
            answers = self.answer(model)
        if state.is_world_process_zero:
            run = Path(args.output_dir)
            self.latest = list(self.records(answers, run, state.global_step))
            # A finished run that is started again evaluates its last step once more.
            keep_steps(run / self.name, state.global_step - 1)
            for record in self.latest:
                append_line(run / self.name, {"step": state.global_step, **record})

    def answer(self, model: Any) -> Sequence[Any]:
        """Answers to the rows, in order."""
        return generate_answers(model, self.processor, self.rows, max_new_tokens=self.max_new_tokens)

    def records(self, answers: Sequence[Any], run: Path, step: int) -> Iterator[dict[str, Any]]:
        """One JSON object for each answer."""
        for row, answer in zip(self.rows, answers, strict=True):
            question, reference = question_and_reference(row)
            yield {"id": row["id"], "question": question, "reference": reference, "answer": answer}


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line in a single write, so that a killed run does not leave half of it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def keep_steps(path: Path, last_step: int) -> None:
    """Drop the lines of steps after ``last_step``, and a line that was cut off."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + "\n")
        except ValueError:
            continue
    write_atomically(path, "".join(kept))
