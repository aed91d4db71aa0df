"""Base of the stages that train the language model."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from vividmed.data.batches.collator import VividMedCollator
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.groups import PUBLISHED
from vividmed.training.adapters.peft import base_model_of
from vividmed.training.generated_metrics import (
    GeneratedMetrics,
    check_decided,
    chosen_metrics,
    logged_names,
)
from vividmed.training.loading import load_model
from vividmed.training.settings.arguments import AnsweringTrainingArguments, TextDataArguments
from vividmed.training.settings.model_arguments import ModelArguments
from vividmed.training.stages.stage import Stage, StageRows
from vividmed.training.trainer import VividMedTrainer

BASE_MODEL = "base_model"


class LanguageStage(Stage):
    """A stage whose model writes text."""

    data_args: TextDataArguments
    model_args: ModelArguments
    args: AnsweringTrainingArguments

    def load_model(self, processor: VividMedProcessor, **options: Any) -> PreTrainedModel:
        """The model of the arguments, computing in a precision in which all its weights meet.

        Args:
            processor: of the model.
            **options: of :func:`vividmed.training.loading.load_model`.
        """
        model = load_model(
            self.model_args,
            processor,
            base_folder=self.args.folder / BASE_MODEL,
            seed=self.args.seed,
            **options,
        )
        precisions = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
        if self.model_args.trainable_dtype == "float32" and precisions != {torch.float32}:
            self.args.compute_in_bfloat16()
        return model

    def generated_names(self) -> Sequence[str]:
        if self.args.eval_metrics is None:
            return ()
        return logged_names(chosen_metrics(self.args.eval_metrics, self.row_kind))

    def check_generated_metrics(self, rows: StageRows) -> None:
        args = self.args
        if args.eval_metrics is None or args.metric_for_best_model is None or rows.evaluation is None:
            return
        metrics = chosen_metrics(args.eval_metrics, self.row_kind)
        check_decided(
            args.metric_for_best_model, metrics, rows.evaluation, self.row_kind, args.eval_metrics_samples
        )

    def generated_metrics(self, trainer: VividMedTrainer, rows: StageRows) -> GeneratedMetrics | None:
        if self.args.eval_metrics is None:
            return None
        return GeneratedMetrics(
            chosen_metrics(self.args.eval_metrics, self.row_kind),
            rows=rows.evaluation,
            row_kind=self.row_kind,
            processor=trainer.processing_class,
            max_rows=self.args.eval_metrics_samples,
            max_new_tokens=self.args.generation_max_new_tokens,
            batch_size=self.args.per_device_eval_batch_size,
            context=trainer.accelerator.autocast,
        )

    def method(self) -> dict[str, Any]:
        args = self.model_args
        method = "all weights"
        if args.use_peft:
            bits = "4-bit " if args.load_in_4bit else "8-bit " if args.load_in_8bit else ""
            groups = args.adapter_groups or [PUBLISHED]
            others = (
                "norms and embeddings whole"
                if PUBLISHED in groups
                else f"on {', '.join(groups)}, with the rows of the added tokens"
            )
            method = f"low-rank adapters of rank {args.lora_r} on a {bits}base model; {others}"
        base = args.model_name_or_path and base_model_of(args.model_name_or_path, args.model_revision)
        return {
            "base_model": base,
            "base_model_id": args.base_model_id,
            "method": method,
            "adapter": args.use_peft,
        }

    def settings(self) -> dict[str, Any]:
        return {"longest sequence": self.data_args.max_length}

    def collator(
        self, kind: type[VividMedCollator], processor: VividMedProcessor, rows: StageRows, **options: Any
    ) -> Any:
        """A collator as the arguments describe it.

        Args:
            kind: class of the collator.
            processor: of the model.
            rows: of the stage; some of them stand in for those that are skipped.
            **options: of the class.
        """
        return kind(
            processor,
            max_length=self.data_args.max_length,
            truncation=self.data_args.truncation,
            packing=self.data_args.packing,
            on_bad_sample=self.data_args.on_bad_sample,
            spare_rows=rows.spare,
            augmentation_seed=self.args.seed,
            deformation=self.data_args.deformation(),
            **options,
        )
