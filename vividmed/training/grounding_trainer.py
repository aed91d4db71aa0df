"""Trainers of the stages whose models draw masks and boxes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from transformers.trainer_utils import EvalLoopOutput

from vividmed.training.means import MeanMeter, target_dice
from vividmed.training.trainer import VividMedTrainer

_OWN = "segmenter."


class GroundingTrainer(VividMedTrainer):
    """A :class:`VividMedTrainer` whose batches have ``grounding_labels``.

    Over a whole step, with its accumulated batches and all processes, the language loss is the mean over labels and
    the grounding loss the mean over samples. The log contains the parts of the grounding loss, averaged over the
    batches that have them, and the Dice of each target by name.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.means = MeanMeter()
        self.samples_in_step: torch.Tensor | None = None

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = torch.tensor(sum(batch["num_samples"] for batch in batches), device=device)
        across = self.args.average_tokens_across_devices
        self.samples_in_step = (gather(own[None]).sum() if across else own).clamp(min=1)
        return batches, num_items

    def loss_counts(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor | int]:
        return {**super().loss_counts(inputs), "grounding_loss": inputs["num_samples"]}

    def _model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        count = self.samples_in_step if torch.is_grad_enabled() else max(inputs["num_samples"], 1)
        return {**super()._model_inputs(inputs), "num_samples_in_batch": count}

    def observe(self, inputs: dict[str, Any], outputs: Any) -> None:
        """Record the parts of the grounding loss and the Dice of each mask for the log."""
        whole = self.loss_counts(inputs)
        self.means.add({name: part for name, part in outputs.loss_components.items() if name not in whole})
        for dice in target_dice(outputs.mask_logits, inputs["grounding_labels"], inputs["target_names"]):
            self.means.add(dice)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and add the parts of the grounding loss and the Dice of each target to the metrics."""
        in_training, self.means = self.means, MeanMeter()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        means = self.means.reduce()
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        self.means = in_training
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.means.reduce()
        super().log(logs, start_time)


class AlignmentTrainer(GroundingTrainer):
    """Trains a :class:`~vividmed.training.alignment.PromptTableSegmenter` and saves only its segmenter."""

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """Count images instead of labels: there is no text, and the loss is the mean over images."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, self.samples_in_step

    def loss_counts(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor | int]:
        return {"grounding_loss": inputs["num_samples"]}

    def write_final(self, folder: Path) -> None:
        """Save the segmenter without its table of prompts, and the image processor."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if self.args.should_save:
            own = {name.removeprefix(_OWN): value for name, value in state.items() if name.startswith(_OWN)}
            self.accelerator.unwrap_model(self.model).segmenter.save_pretrained(folder, state_dict=own)
            self.processing_class.save_pretrained(folder)
