"""The course of a stage: load rows, build, train, measure, save, write the card, print, push."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from datasets import Dataset

from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture import Mixture, keyed_rows
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import RowKind
from vividmed.errors import VividMedError
from vividmed.training.callbacks import EarlyStopping, LossCurve, MetricsFile, SampleAnswers
from vividmed.training.generated_metrics import GeneratedMetrics
from vividmed.training.hub_files import use_taxonomy_of_model
from vividmed.training.memory import memory_summary
from vividmed.training.rows import load_rows
from vividmed.training.runs.provenance import run_provenance, started_from
from vividmed.training.runs.run_folder import run_folder
from vividmed.training.settings.arguments import DataArguments, VividMedTrainingArguments
from vividmed.training.settings.preflight import (
    check_environment,
    check_optimizer,
    check_schedule,
    check_streaming,
)
from vividmed.training.split_overlap import describe_overlap
from vividmed.training.stages.measurement import Measurement, Measuring
from vividmed.training.stages.results import write_results
from vividmed.training.trainer import VividMedTrainer


@dataclass(frozen=True)
class StageRows:
    """Rows to train on, and rows to evaluate on where there are any."""

    train: Dataset | Mixture | MixtureStream
    evaluation: Dataset | None

    @property
    def size(self) -> int:
        """Number of rows to train on."""
        return sum(self.train.sizes) if isinstance(self.train, MixtureStream) else len(self.train)

    @property
    def spare(self) -> Any:
        """Rows that stand in for those that are skipped; a stream gives none, so evaluation rows do it there."""
        if not isinstance(self.train, MixtureStream):
            return keyed_rows(self.train)
        return () if self.evaluation is None else KeyedRows(self.evaluation)


@dataclass(frozen=True)
class StageResult:
    """Result of a stage.

    Attributes:
        folder: the trained model, with its processor and card.
        step: optimizer step of the weights in the folder.
        measurement: figures measured on these weights.
    """

    folder: Path
    step: int
    measurement: Measurement


class Stage(ABC):
    """A stage of training: the parts that differ between stages; :func:`run_stage` does the rest.

    A subclass is a dataclass whose fields are its groups of arguments, in the order of the command line's help. A new
    stage is one such class, one line in :data:`vividmed.training.stages.command.STAGES` and its configurations.

    Attributes:
        name: what ``--stage`` calls it.
        row_kind: kind of the rows it trains on.
        card: template of its model card, in ``model_cards/``.
        always_measures_start: measure the untrained model even if ``eval_on_start`` does not ask for it.
        metrics: names that an evaluation logs, without ``eval_``; a trailing ``*`` stands for any ending.
        configurations: settings for a mixture, for one data set, and for the embedded sample, as paths in
            ``stages/configs`` without ``.yaml``; ``{}`` is the stage.
    """

    name: ClassVar[str]
    row_kind: ClassVar[RowKind]
    card: ClassVar[str]
    always_measures_start: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    configurations: ClassVar[tuple[str, str, str]] = ("{}", "own/{}", "{}_tiny")

    data_args: DataArguments
    args: VividMedTrainingArguments

    @classmethod
    def arguments(cls) -> tuple[type[Any], ...]:
        """Classes of the groups of arguments."""
        hints = get_type_hints(cls)
        return tuple(hints[field.name] for field in fields(cls))  # type: ignore[arg-type]

    @property
    def groups(self) -> list[Any]:
        """The groups of arguments, in order."""
        return [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]

    def resolved(self) -> "Stage":
        """The stage to run; another one where the rows decide it."""
        return self

    @abstractmethod
    def build(self, rows: StageRows) -> VividMedTrainer:
        """The model with its Trainer, ready to train."""

    def sample_answers(self, trainer: VividMedTrainer, rows: StageRows) -> SampleAnswers | None:
        """The callback that answers evaluation rows; None for models that give no answers."""
        return None

    def generated_names(self) -> Sequence[str]:
        """Names that :meth:`generated_metrics` logs, without ``eval_``."""
        return ()

    def check_generated_metrics(self, rows: StageRows) -> None:
        """Check that the rows decide the figure that chooses the best checkpoint, if it is one of generated answers.

        Raises:
            VividMedError: they do not.
        """
        return

    def generated_metrics(self, trainer: VividMedTrainer, rows: StageRows) -> GeneratedMetrics | None:
        """Further figures of each evaluation; None for none."""
        return None

    def measure(
        self, trainer: VividMedTrainer, rows: StageRows, evaluation: Mapping[str, float]
    ) -> Measurement:
        """Figures of the weights as they are.

        Args:
            trainer: the stage's.
            rows: the stage's.
            evaluation: what the Trainer's evaluation of these weights has given.
        """
        return Measurement.of_evaluation(evaluation)

    @abstractmethod
    def method(self) -> dict[str, Any]:
        """Start and method of training, for the card: ``base_model``, ``method``, ``adapter``."""

    def record(self, trainer: VividMedTrainer, rows: StageRows) -> None:  # noqa: B027 (most stages record nothing)
        """Write into the model's configuration what its users need to know of the training; every process does."""

    def settings(self) -> dict[str, Any]:
        """Settings of its own that the card lists, by name."""
        return {}


def run_stage(stage: Stage) -> StageResult:
    """Train a stage and leave a usable model with its card in the output folder.

    Args:
        stage: with its arguments.

    Returns:
        The folder, and the figures of the weights in it.

    Raises:
        VividMedError: for everything that the user can correct, before the first step where it can be known.
    """
    args = stage.args
    check_streaming(stage.data_args, args)
    check_environment(args, [*stage.metrics, *stage.generated_names()])
    for place in started_from(stage.groups):
        use_taxonomy_of_model(place)
    with run_folder(args) as checkpoint:
        rows = StageRows(*load_rows(stage.row_kind, stage.data_args, args))
        _check_evaluation(args, rows)
        stage.check_generated_metrics(rows)
        held_out = describe_overlap(rows.train, rows.evaluation) if args.should_save else ""
        trainer = stage.build(rows)
        trainer.provenance = run_provenance(rows.train, stage.data_args, started_from(stage.groups))
        check_optimizer(args, trainer.model)
        check_schedule(args, rows.size, trainer.rows_per_step)
        for callback in (MetricsFile(), LossCurve()):
            trainer.add_callback(callback)
        if rows.evaluation is not None:
            trainer.generated_metrics = stage.generated_metrics(trainer, rows)
        if args.early_stopping_patience is not None:
            trainer.add_callback(
                EarlyStopping(args.early_stopping_patience, threshold=args.early_stopping_threshold)
            )
        samples = None if rows.evaluation is None else stage.sample_answers(trainer, rows)
        if samples is not None:
            trainer.add_callback(samples)
        measuring = Measuring(
            trainer,
            evaluation_rows=rows.evaluation,
            measure=lambda evaluation: stage.measure(trainer, rows, evaluation),
            samples=samples,
            always_at_start=stage.always_measures_start,
        )
        trainer.add_callback(measuring)
        if trainer.is_world_process_zero():
            say(memory_summary(trainer.model))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        after = measuring.of_final_weights()
        stage.record(trainer, rows)
        trainer.save_final()
        if trainer.is_world_process_zero():
            before = measuring.of_start(checkpoint)
            write_results(
                stage.name,
                trainer,
                template=stage.card,
                groups=stage.groups,
                rows=(rows.train, rows.evaluation),
                held_out=held_out,
                how=stage.method(),
                settings=stage.settings(),
                step=measuring.final_step,
                metrics=after.table(before),
                figures=after.numbers(),
            )
            say(after.report(before, trainer.state.log_history) + f"\n\ncheckpoint: {args.output_dir}")
        if args.push_to_hub:
            trainer.push_to_hub()
    return StageResult(args.folder, measuring.final_step, after)


def say(text: str) -> None:
    """Print to the terminal, whatever characters it can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _check_evaluation(args: VividMedTrainingArguments, rows: StageRows) -> None:
    """Evaluating needs rows that are held out."""
    asked = [
        name
        for name, is_asked in (
            ("--eval_strategy", args.eval_strategy != "no"),
            ("--eval_on_start", args.eval_on_start),
            ("--load_best_model_at_end", args.load_best_model_at_end),
        )
        if is_asked
    ]
    if rows.evaluation is None and asked:
        raise VividMedError(
            f"{' and '.join(asked)}: a mixture gives rows to train on only; name rows to evaluate on with "
            "--dataset_name, or turn evaluation off"
        )
