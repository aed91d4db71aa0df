"""Stages ``vg`` (visual grounding, published stage 1) and ``grg`` (grounded report generation, published stage 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vividmed.data.bad_rows import usable_rows
from vividmed.data.batches.augmentation import AugmentationSettings
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.data.conversations import Conversation, build_conversation
from vividmed.data.sample import load_sample
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture_conversations import mixture_conversation
from vividmed.training.grounded_answers import SampleOverlays
from vividmed.training.grounding_trainer import GroundingTrainer
from vividmed.training.loading import load_processor
from vividmed.training.oversampling import oversample, read_factors
from vividmed.training.presence import calibrate_presence, trained_forms, write_record
from vividmed.training.settings.arguments import AnsweringTrainingArguments, TextDataArguments
from vividmed.training.settings.grounding_arguments import GroundingArguments
from vividmed.training.settings.model_arguments import ModelArguments
from vividmed.training.stages.language import LanguageStage
from vividmed.training.stages.stage import StageRows
from vividmed.training.trainer import VividMedTrainer


@dataclass
class GroundingStage(LanguageStage):
    """Train text together with the masks and boxes of its phrases; held-out answers are drawn on their images."""

    card = "grounding.md.jinja"
    metrics = (
        "loss",
        "lm_loss",
        "grounding_loss",
        "dice",
        "focal",
        "score",
        "box_l1",
        "box_giou",
        "dice/*",
    )

    data_args: TextDataArguments
    model_args: ModelArguments
    grounding_args: GroundingArguments
    args: AnsweringTrainingArguments

    def build(self, rows: StageRows) -> VividMedTrainer:
        processor = load_processor(self.model_args)
        model = self.load_model(processor, frozen=self.grounding_args.frozen, grounding=self.grounding_args)
        return GroundingTrainer(
            model=model,
            args=self.args,
            processing_class=processor,
            data_collator=self.collator(GroundedCollator, processor, rows, transform=self.transform(rows)),
            train_dataset=oversample(rows.train, read_factors(self.grounding_args.oversample)),
            eval_dataset=rows.evaluation,
        )

    def sample_answers(self, trainer: VividMedTrainer, rows: StageRows) -> SampleOverlays:
        evaluation, transform = KeyedRows(rows.evaluation), self.transform(rows)
        samples = usable_rows(
            evaluation,
            _spread(len(evaluation), self.args.generation_samples),
            transform,
            on_bad_sample=self.data_args.on_bad_sample,
        )
        return SampleOverlays(
            trainer.processing_class,
            samples,
            transform=transform,
            max_new_tokens=self.args.generation_max_new_tokens,
            context=trainer.accelerator.autocast,
        )

    def record(self, trainer: VividMedTrainer, rows: StageRows) -> None:
        config = trainer.model.config
        config.target_forms = {**(config.target_forms or {}), **trained_forms(rows.train)} or None
        held_out = self._held_out_localization(rows)
        if held_out is not None:
            with trainer.accelerator.autocast():
                calibrate_presence(trainer.model, trainer.processing_class, held_out)
        if self.model_args.use_peft and trainer.is_world_process_zero():
            write_record(config, self.args.folder)

    def _held_out_localization(self, rows: StageRows) -> Any:
        """Held-out rows that say which targets are absent; None if there are none."""
        if self.row_kind == "localization" or rows.evaluation is None:
            return rows.evaluation
        # Reports only mark what is there, so the sample's localization rows are asked where its reports trained.
        is_sample = self.data_args.dataset_name is None and self.data_args.mixture is None
        return load_sample("localization", "test") if is_sample else None

    def transform(self, rows: StageRows) -> GroundingTransform:
        """Turns rows into examples; a mixture draws the conversations about its own rows."""

        def draw_conversation(
            row_kind: str, row: Mapping[str, Any], generator: np.random.Generator
        ) -> Conversation:
            drawn = mixture_conversation(rows.train, row)
            return drawn or build_conversation(row_kind, row, generator=generator)

        return GroundingTransform(
            seed=self.args.seed,
            draw_conversation=draw_conversation,
            augmentation=AugmentationSettings() if self.grounding_args.augment else None,
            equalize=self.grounding_args.equalize,
        )


class VgStage(GroundingStage):
    """Train on localization rows: questions for targets, answered by phrases with masks and boxes."""

    name = "vg"
    row_kind = "localization"


class GrgStage(GroundingStage):
    """Train on grounded reports: their text, and the masks and boxes of their phrases."""

    name = "grg"
    row_kind = "grounded_report"


def _spread(count: int, number: int) -> list[int]:
    """Up to ``number`` places, evenly spread over ``count``."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(number, count))})
