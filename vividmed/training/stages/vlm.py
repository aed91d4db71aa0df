"""Stage ``vlm``: instruction tuning on images and text (published stage 2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState

from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.examples import read_images, to_example
from vividmed.data.sampling.mixture import Mixture, keyed_rows
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.answers import (
    CLOSED_KINDS,
    Accuracy,
    generate_answers,
    question_and_reference,
    score_closed,
)
from vividmed.training.arguments import DataArguments, ModelArguments, VividMedTrainingArguments
from vividmed.training.callbacks import LossCurve, MetricsFile, SampleAnswers
from vividmed.training.loading import load_model, load_processor
from vividmed.training.memory import memory_summary
from vividmed.training.peft import GROUNDING_MODULES
from vividmed.training.rows import load_rows
from vividmed.training.run_folder import BASELINE, run_folder
from vividmed.training.stages.results import CARDS, how_trained, run_facts, write_results
from vividmed.training.stages.stage import Stage
from vividmed.training.trainer import VividMedTrainer

NAME = "vlm"
BASE_MODEL = "base_model"


class VlmTrainer(VividMedTrainer):
    """Trains on vision-language rows; the loss is the language loss alone."""


@dataclass(frozen=True)
class Measurement:
    """What is measured on held-out rows before and after training."""

    eval_loss: float
    accuracy: dict[str, Accuracy]
    sample_answers: list[str]

    @classmethod
    def load(cls, path: Path) -> "Measurement":
        values = json.loads(path.read_text())
        accuracy = {kind: Accuracy(**counts) for kind, counts in values["accuracy"].items()}
        return cls(values["eval_loss"], accuracy, values["sample_answers"])


class Baseline(TrainerCallback):
    """Measures the untrained model once, when it is placed and wrapped for training, and keeps the figures."""

    def __init__(self, trainer: VlmTrainer, closed: list[dict[str, Any]], samples: list[dict[str, Any]]):
        self.trainer = trainer
        self.closed = closed
        self.samples = samples

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0:
            measured = measure(self.trainer, self.closed, self.samples)
            if state.is_world_process_zero:
                write_atomically(args.folder / BASELINE, json.dumps(asdict(measured), indent=1))


def run(data_args: DataArguments, model_args: ModelArguments, args: VividMedTrainingArguments) -> None:
    """Train, measure before and after, and leave a usable model with its card in the output folder."""
    with run_folder(args) as checkpoint:
        folder = args.folder
        train_rows, eval_rows = load_rows("vision_language", data_args)
        if eval_rows is None:
            raise VividMedError(
                "--mixture gives rows to train on alone: name rows to evaluate on with --dataset_name"
            )
        processor = load_processor(model_args)
        model = load_model(
            model_args, processor, base_folder=folder / BASE_MODEL, seed=args.seed, frozen=GROUNDING_MODULES
        )
        samples = varied_rows(eval_rows, args.generation_samples)
        trainer = VlmTrainer(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=collator(processor, data_args, args, train_rows=train_rows),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            callbacks=[
                MetricsFile(),
                LossCurve(),
                SampleAnswers(processor, samples, args.generation_max_new_tokens),
            ],
        )
        is_main = trainer.is_world_process_zero()
        if is_main:
            print(memory_summary(model), flush=True)

        closed = closed_rows(eval_rows, args.closed_question_samples)
        trainer.add_callback(Baseline(trainer, closed, samples))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        after = measure(trainer, closed, samples)

        trainer.save_final()
        if is_main:
            before = Measurement.load(folder / BASELINE)
            facts = run_facts(
                NAME,
                trainer,
                **how_trained(model_args),
                train_rows=train_rows,
                eval_rows=eval_rows,
                settings={"longest sequence": data_args.max_length},
                metrics=metrics_table(before, after),
            )
            write_results(folder, CARDS / "vlm.md.jinja", facts, [data_args, model_args, args])
            print(report(trainer, samples, before, after), flush=True)
        if args.push_to_hub:
            trainer.push_to_hub()


def collator(
    processor: VividMedProcessor,
    data_args: DataArguments,
    args: VividMedTrainingArguments,
    *,
    train_rows: Dataset | Mixture,
) -> VividMedCollator:
    """The collator that the arguments describe; a mixture draws the conversations about its own rows."""

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(train_rows, Mixture) and "dataset" in row:
            return {"images": read_images(row), "messages": train_rows.conversation(dict(row)).messages}
        return to_example(row)

    return VividMedCollator(
        processor,
        max_length=data_args.max_length,
        truncation=data_args.truncation,
        packing=data_args.packing,
        on_bad_sample=data_args.on_bad_sample,
        spare_rows=keyed_rows(train_rows),
        augmentation_seed=args.seed,
        intensity_jitter=data_args.intensity_jitter,
        read=read,
    )


def varied_rows(rows: Any, number: int) -> list[dict[str, Any]]:
    """Rows of patients, modalities and kinds as different as there are, in the data set's order."""
    keys = rows.select_columns(["patient", "modality", "kind"])
    chosen: list[int] = []
    seen: set[Any] = set()
    for columns in (("patient", "modality", "kind"), ("patient", "kind"), ("kind",), ()):
        for index, key in enumerate(keys):
            values = {(column, key[column]) for column in columns}
            if len(chosen) < number and index not in chosen and not values & seen:
                chosen.append(index)
                seen |= {(column, key[column]) for column in ("patient", "modality", "kind")}
    return [rows[index] for index in sorted(chosen)]


def closed_rows(rows: Any, number: int) -> list[dict[str, Any]]:
    """The first rows whose question has one right answer."""
    indices = [
        index for index, row in enumerate(rows.select_columns(["kind"])) if row["kind"] in CLOSED_KINDS
    ]
    return [rows[index] for index in indices[:number]]


def measure(
    trainer: VlmTrainer, closed: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]]
) -> Measurement:
    """Evaluation loss, accuracy on closed questions and answers to the samples, with the model as it is."""
    step = trainer.state.global_step
    logged = [line for line in trainer.state.log_history if "eval_loss" in line and line["step"] == step]
    loss = (logged[-1] if logged else trainer.evaluate())["eval_loss"]
    answers = generate_answers(
        trainer.model,
        trainer.processing_class,
        [*closed, *samples],
        max_new_tokens=trainer.args.generation_max_new_tokens,
    )
    return Measurement(loss, score_closed(closed, answers[: len(closed)]), answers[len(closed) :])


def metrics_table(before: Measurement, after: Measurement) -> dict[str, str]:
    """The measured figures for the model card."""
    metrics = {"evaluation loss per token": f"{before.eval_loss:.3f} before, {after.eval_loss:.3f} after"}
    for kind, accuracy in after.accuracy.items():
        metrics[f"{kind} questions right"] = f"{before.accuracy[kind]} before, {accuracy} after"
    return metrics


def report(
    trainer: VlmTrainer, samples: Sequence[dict[str, Any]], before: Measurement, after: Measurement
) -> str:
    """What the run prints at its end."""
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    lines = [
        "",
        f"evaluation loss per token: {before.eval_loss:.3f} at the start, {after.eval_loss:.3f} at the end",
        f"training loss per token: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end",
    ]
    for kind, accuracy in after.accuracy.items():
        lines.append(f"held-out {kind} questions right: {before.accuracy[kind]} before, {accuracy} after")
    for row, first, last in zip(samples, before.sample_answers, after.sample_answers, strict=True):
        question, reference = question_and_reference(row)
        lines += [
            "",
            f"held-out image {row['id']}",
            f"  question:  {question}",
            f"  reference: {reference}",
            f"  before:    {first}",
            f"  after:     {last}",
        ]
    return "\n".join([*lines, "", f"checkpoint: {trainer.args.output_dir}"])


VLM = Stage(run, (DataArguments, ModelArguments, VividMedTrainingArguments))
