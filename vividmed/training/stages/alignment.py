"""Stages ``align-sam`` and ``align-isam``: a segmenter learns the targets of the taxonomy, from masks or boxes."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transformers import set_seed

from vividmed.data.batches.alignment import AlignmentCollator, CropSettings, SegmentationTransform
from vividmed.data.batches.augmentation import AugmentationSettings
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.training.alignment import PromptTableSegmenter
from vividmed.training.grounding_trainer import AlignmentTrainer
from vividmed.training.oversampling import oversample, read_factors
from vividmed.training.segmenters import load_segmenter
from vividmed.training.settings.arguments import DataArguments, VividMedTrainingArguments
from vividmed.training.settings.grounding_arguments import (
    AlignmentArguments,
    BoxAlignmentArguments,
    MaskAlignmentArguments,
)
from vividmed.training.stages.stage import Stage, StageRows
from vividmed.training.trainer import VividMedTrainer


@dataclass
class AlignmentStage(Stage):
    """Train a segmenter without a language model; each target of the taxonomy has a learned prompt."""

    row_kind = "localization"
    card = "segmenter.md.jinja"
    label_type: ClassVar[Literal["mask", "box"]]

    data_args: DataArguments
    alignment_args: AlignmentArguments
    args: VividMedTrainingArguments

    @abstractmethod
    def segmenter(self) -> Segmenter | InstanceSegmenter:
        """The segmenter to train, loaded or made."""

    def build(self, rows: StageRows) -> VividMedTrainer:
        set_seed(self.args.seed)
        segmenter = self.segmenter()
        transform = self.transform(segmenter)
        train = oversample(rows.train, read_factors(self.alignment_args.oversample))
        return AlignmentTrainer(
            model=PromptTableSegmenter(segmenter, self.alignment_args.losses()),
            args=self.args,
            processing_class=transform.image_processor,
            data_collator=AlignmentCollator(
                transform,
                on_bad_sample=self.data_args.on_bad_sample,
                spare_rows=rows.spare,
            ),
            train_dataset=train,
            eval_dataset=rows.evaluation,
            train_lengths=[1] * (rows.size if train is rows.train else len(train)),
        )

    def transform(self, segmenter: Segmenter | InstanceSegmenter) -> SegmentationTransform:
        """Turns rows into examples that fill the budget of the arguments."""
        args = self.alignment_args
        low = args.low_image_tokens
        return SegmentationTransform(
            image_processor=_processor(segmenter, args.max_image_tokens, args.max_slice_tokens),
            low_resolution=_processor(segmenter, low, args.low_slice_tokens) if low else None,
            label_type=self.label_type,
            seed=self.args.seed,
            augmentation=AugmentationSettings() if args.augment else None,
            deformation=self.data_args.deformation(),
            max_present=args.max_present,
            max_targets=args.max_targets,
            crops=CropSettings() if getattr(args, "crop", False) else None,
        )

    def method(self) -> dict[str, Any]:
        return {
            "base_model": self.alignment_args.model_name_or_path,
            "method": "all weights, with a table of prompts that is not kept",
            "adapter": False,
        }

    def settings(self) -> dict[str, Any]:
        return {"patches of an image": self.alignment_args.max_image_tokens}


@dataclass
class AlignSamStage(AlignmentStage):
    """Train the segmenter on crops of localization rows with masks."""

    name = "align-sam"
    label_type = "mask"
    metrics = ("loss", "dice", "focal", "dice/*")

    alignment_args: MaskAlignmentArguments

    def segmenter(self) -> Segmenter:
        source = self.alignment_args.model_name_or_path
        return Segmenter(SegmenterConfig.tiny()) if source is None else load_segmenter("segmenter", source)


@dataclass
class AlignIsamStage(AlignmentStage):
    """Train the instance segmenter on whole images of localization rows with boxes."""

    name = "align-isam"
    label_type = "box"
    metrics = ("loss", "score", "box_l1", "box_giou")

    alignment_args: BoxAlignmentArguments

    def segmenter(self) -> InstanceSegmenter:
        source = self.alignment_args.model_name_or_path
        if source is None:
            segmenter = InstanceSegmenter(InstanceSegmenterConfig.tiny())
        else:
            segmenter = load_segmenter("instance_segmenter", source)
        for parameter in segmenter.mask_parameters():
            parameter.requires_grad_(False)
        return segmenter


def _processor(segmenter: Any, max_image_tokens: int, max_slice_tokens: int) -> VividMedImageProcessor:
    return VividMedImageProcessor(
        patch_size=segmenter.config.patch_size,
        pool_size=(1, 1, 1),
        max_image_tokens=max_image_tokens,
        max_slice_tokens=max_slice_tokens,
    )
