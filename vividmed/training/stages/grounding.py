"""Stages ``vg`` (visual grounding, published stage 1) and ``grg`` (grounded report generation, published stage 3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vividmed.data.batches.augmentation import AugmentationSettings
from vividmed.data.batches.collator import Rows
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.data.conversations import Conversation, build_conversation
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture import Mixture, keyed_rows
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.arguments import DataArguments, ModelArguments, VividMedTrainingArguments
from vividmed.training.callbacks import LossCurve, MetricsFile
from vividmed.training.grounded_answers import GroundedAnswer, SampleOverlays
from vividmed.training.grounding_arguments import GroundingArguments
from vividmed.training.grounding_trainer import GroundingTrainer
from vividmed.training.loading import load_model, load_processor
from vividmed.training.memory import memory_summary
from vividmed.training.rows import RowKind, load_rows
from vividmed.training.run_folder import run_folder
from vividmed.training.stages.results import CARDS, evaluation_metrics, how_trained, run_facts, write_results
from vividmed.training.stages.stage import Stage

ARGUMENTS = (DataArguments, ModelArguments, GroundingArguments, VividMedTrainingArguments)
BASE_MODEL = "base_model"


def train(
    name: str,
    kind: RowKind,
    data_args: DataArguments,
    model_args: ModelArguments,
    grounding_args: GroundingArguments,
    args: VividMedTrainingArguments,
) -> None:
    """Train a stage and leave a usable model with its card in the output folder.

    Args:
        name: of the stage.
        kind: of the rows it is trained on.
        data_args: rows.
        model_args: model and adapters.
        grounding_args: segmenters, losses and augmentation.
        args: the Trainer's.
    """
    with run_folder(args) as checkpoint:
        folder = args.folder
        train_rows, eval_rows = load_rows(kind, data_args)
        processor = load_processor(model_args)
        model = load_model(
            model_args,
            processor,
            base_folder=folder / BASE_MODEL,
            seed=args.seed,
            frozen=grounding_args.frozen,
            grounding=grounding_args,
        )
        read = reader(train_rows, grounding_args, args.seed)
        callbacks: list[Any] = [MetricsFile(), LossCurve()]
        overlays = None
        if eval_rows is not None:
            samples = [KeyedRows(eval_rows)[i] for i in _spread(len(eval_rows), args.generation_samples)]
            overlays = SampleOverlays(processor, samples, read, max_new_tokens=args.generation_max_new_tokens)
            callbacks.append(overlays)
        trainer = GroundingTrainer(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=collator(processor, read, data_args, args, spare_rows=keyed_rows(train_rows)),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            callbacks=callbacks,
        )
        is_main = trainer.is_world_process_zero()
        if is_main:
            print(memory_summary(model), flush=True)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        metrics = {} if eval_rows is None else evaluation_metrics(trainer)
        trainer.save_final()
        if is_main:
            facts = run_facts(
                name,
                trainer,
                **how_trained(model_args),
                train_rows=train_rows,
                eval_rows=eval_rows,
                settings={"longest sequence": data_args.max_length},
                metrics=metrics,
            )
            write_results(
                folder, CARDS / "grounding.md.jinja", facts, [data_args, model_args, grounding_args, args]
            )
            answers = [] if overlays is None else overlays.answers
            print(report(metrics, answers, str(args.output_dir)), flush=True)
        if args.push_to_hub:
            trainer.push_to_hub()


def reader(rows: Any, grounding_args: GroundingArguments, seed: int) -> GroundingTransform:
    """What turns rows into examples; a mixture draws the conversations about its own rows."""

    def converse(kind: str, row: Mapping[str, Any], generator: np.random.Generator) -> Conversation:
        if isinstance(rows, Mixture) and "dataset" in row:
            return rows.conversation(dict(row))
        return build_conversation(kind, row, generator=generator)

    return GroundingTransform(
        seed=seed,
        converse=converse,
        augmentation=AugmentationSettings() if grounding_args.augment else None,
        equalize=grounding_args.equalize,
    )


def collator(
    processor: VividMedProcessor,
    read: GroundingTransform,
    data_args: DataArguments,
    args: VividMedTrainingArguments,
    *,
    spare_rows: Rows,
) -> GroundedCollator:
    """The collator that the arguments describe."""
    return GroundedCollator(
        processor,
        read=read,
        max_length=data_args.max_length,
        truncation=data_args.truncation,
        packing=data_args.packing,
        on_bad_sample=data_args.on_bad_sample,
        spare_rows=spare_rows,
        augmentation_seed=args.seed,
    )


def report(metrics: Mapping[str, str], answers: list[GroundedAnswer], folder: str) -> str:
    """What the run prints at its end."""
    lines = ["", *(f"{name}: {value}" for name, value in metrics.items())]
    for answer in answers:
        lines += [
            "",
            f"held-out image {answer.id}",
            f"  question:  {answer.question}",
            f"  reference: {answer.reference}",
            f"  answer:    {answer.grounded.text}",
        ]
        for phrase in answer.grounded.phrases:
            voxels = 0 if phrase.mask is None else int(phrase.mask.sum())
            lines.append(f"    {phrase.text}: mask of {voxels} voxels, {len(phrase.boxes)} boxes")
    return "\n".join([*lines, "", f"checkpoint: {folder}"])


def _spread(count: int, number: int) -> list[int]:
    """Up to ``number`` places, evenly spread over ``count``."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(number, count))})


def run_vg(*arguments: Any) -> None:
    """Train on localization rows: questions for targets, answered by phrases with masks and boxes."""
    train("vg", "localization", *arguments)


def run_grg(*arguments: Any) -> None:
    """Train on grounded reports: their text, and the masks and boxes of their phrases."""
    train("grg", "grounded_report", *arguments)


VG = Stage(run_vg, ARGUMENTS)
GRG = Stage(run_grg, ARGUMENTS)
