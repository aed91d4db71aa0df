"""Stages ``align-sam`` and ``align-isam``: a segmenter learns the targets of the taxonomy, from masks or boxes."""

from pathlib import Path
from typing import Any, Literal

from transformers import set_seed

from vividmed.data.batches.alignment import AlignmentCollator, CropSettings, SegmentationTransform
from vividmed.data.batches.augmentation import AugmentationSettings
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.training.alignment import PromptTableSegmenter
from vividmed.training.arguments import DataArguments, VividMedTrainingArguments
from vividmed.training.callbacks import LossCurve, MetricsFile
from vividmed.training.grounding_arguments import AlignmentArguments
from vividmed.training.grounding_trainer import AlignmentTrainer
from vividmed.training.rows import load_rows
from vividmed.training.run_folder import run_folder
from vividmed.training.segmenters import load_segmenter
from vividmed.training.stages.results import CARDS, evaluation_metrics, run_facts, write_results
from vividmed.training.stages.stage import Stage

ARGUMENTS = (DataArguments, AlignmentArguments, VividMedTrainingArguments)
Form = Literal["mask", "box"]


def train(
    name: str,
    form: Form,
    data_args: DataArguments,
    alignment_args: AlignmentArguments,
    args: VividMedTrainingArguments,
) -> None:
    """Train a segmenter on localization rows and leave it with its card in the output folder.

    Args:
        name: of the stage.
        form: of the labels: masks for the segmenter, boxes for the instance segmenter.
        data_args: rows.
        alignment_args: the segmenter, its losses, and how images are shown.
        args: the Trainer's.
    """
    with run_folder(args) as checkpoint:
        train_rows, eval_rows = load_rows("localization", data_args)
        set_seed(args.seed)
        segmenter = _segmenter(form, alignment_args.model_name_or_path)
        model = PromptTableSegmenter(segmenter, alignment_args.losses())
        read = reader(form, segmenter, alignment_args, args.seed)
        trainer = AlignmentTrainer(
            model=model,
            args=args,
            processing_class=read.image_processor,
            data_collator=AlignmentCollator(read),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            train_lengths=[1] * len(train_rows),
            callbacks=[MetricsFile(), LossCurve()],
        )
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        metrics = {} if eval_rows is None else evaluation_metrics(trainer)
        trainer.save_final()
        if trainer.is_world_process_zero():
            facts = run_facts(
                name,
                trainer,
                base_model=alignment_args.model_name_or_path,
                method="all weights, with a table of prompts that is not kept",
                adapter=False,
                train_rows=train_rows,
                eval_rows=eval_rows,
                settings={"patches of an image": alignment_args.max_image_tokens},
                metrics=metrics,
            )
            write_results(args.folder, CARDS / "segmenter.md.jinja", facts, [data_args, alignment_args, args])
            lines = [f"{metric}: {value}" for metric, value in metrics.items()]
            print("\n".join(["", *lines, f"checkpoint: {args.output_dir}"]), flush=True)
        if args.push_to_hub:
            trainer.push_to_hub()


def reader(
    form: Form, segmenter: Segmenter | InstanceSegmenter, args: AlignmentArguments, seed: int
) -> SegmentationTransform:
    """What turns rows into examples, at the budget of the arguments."""
    low = args.low_image_tokens
    return SegmentationTransform(
        image_processor=_processor(segmenter, args.max_image_tokens, args.max_slice_tokens),
        low_resolution=_processor(segmenter, low, args.low_slice_tokens) if low else None,
        form=form,
        seed=seed,
        augmentation=AugmentationSettings() if args.augment else None,
        max_present=args.max_present,
        max_targets=args.max_targets,
        crops=CropSettings() if args.crop and form == "mask" else None,
    )


def _processor(segmenter: Any, max_image_tokens: int, max_slice_tokens: int) -> VividMedImageProcessor:
    return VividMedImageProcessor(
        patch_size=segmenter.config.patch_size,
        pool_size=(1, 1, 1),
        max_image_tokens=max_image_tokens,
        max_slice_tokens=max_slice_tokens,
    )


def _segmenter(form: Form, source: str | Path | None) -> Segmenter | InstanceSegmenter:
    segmenter: Segmenter | InstanceSegmenter
    if source is not None:
        segmenter = load_segmenter("segmenter" if form == "mask" else "instance_segmenter", str(source))
    elif form == "mask":
        segmenter = Segmenter(SegmenterConfig.tiny())
    else:
        segmenter = InstanceSegmenter(InstanceSegmenterConfig.tiny())
    if isinstance(segmenter, InstanceSegmenter):
        for parameter in segmenter.mask_parameters():
            parameter.requires_grad_(False)
    return segmenter


def run_align_sam(*arguments: Any) -> None:
    """Train the segmenter on crops of localization rows with masks."""
    train("align-sam", "mask", *arguments)


def run_align_isam(*arguments: Any) -> None:
    """Train the instance segmenter on whole images of localization rows with boxes."""
    train("align-isam", "box", *arguments)


ALIGN_SAM = Stage(run_align_sam, ARGUMENTS)
ALIGN_ISAM = Stage(run_align_isam, ARGUMENTS)
