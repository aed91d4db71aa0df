"""The Trainer of all stages."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.length_grouped import LengthGroupedSampler
from vividmed.data.sampling.lengths import measure_lengths
from vividmed.data.sampling.mixture import Mixture, keyed_rows
from vividmed.data.sampling.mixture_sampler import MixtureSampler
from vividmed.errors import VividMedError
from vividmed.hub.publish import publish_model
from vividmed.training import peft
from vividmed.training.arguments import VividMedTrainingArguments
from vividmed.training.checkpointing import (
    atomic_checkpoint,
    checkpoint_folder,
    remove_old_checkpoints,
    write_manifest,
)
from vividmed.training.step_statistics import StepStatistics
from vividmed.training.throughput import step_cost

# Parts of a batch that are for people and bookkeeping, not for the model.
_NOT_FOR_THE_MODEL = ("sample_ids", "size", "geometry", "num_samples", "target_names")


class VividMedTrainer(Trainer):
    """``transformers.Trainer`` for rows of images and conversations.

    What it adds: batches of similar length in an order that depends on (seed, epoch) alone; the loss per supervised
    token over accumulation steps and processes; named parts of the loss, throughput and peak memory in the log
    without waiting for the device at each step; a stop at the first non-finite loss; checkpoints that are complete
    or not there; weight decay on the weights of linear and convolution layers alone, as published.

    Args:
        model: a ``VividMedForCausalLM``, or one with adapters.
        args: the run's arguments.
        processing_class: the ``VividMedProcessor``; saved with the model.
        data_collator: a ``VividMedCollator``.
        train_dataset: rows, or a mixture of data sets.
        eval_dataset: rows.
        train_lengths: tokens of each training row; measured from the images' headers and the text when not given.
        callbacks: more callbacks.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel | nn.Module,
        args: VividMedTrainingArguments,
        processing_class: ProcessorMixin,
        data_collator: Callable[[list[Any]], dict[str, Any]],
        train_dataset: Any = None,
        eval_dataset: Any = None,
        train_lengths: Sequence[int] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        if args.n_gpu > 1:
            raise VividMedError(
                f"one process sees {args.n_gpu} GPUs: start with `accelerate launch`, one process a GPU, "
                "or set CUDA_VISIBLE_DEVICES to one of them"
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and args.world_size == 1:
            raise VividMedError(
                f"{os.environ['WORLD_SIZE']} processes were started but each works alone, as no GPU was found: on a CPU "
                "start with `accelerate launch --cpu --num_processes N`"
            )
        self._train_lengths = train_lengths
        self._eval_sums: dict[str, torch.Tensor] = {}
        full_batch = args.eval_batch_size * args.world_size
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=data_collator,
            train_dataset=None if train_dataset is None else keyed_rows(train_dataset),
            eval_dataset=None if eval_dataset is None else KeyedRows(eval_dataset, full_batch),
            callbacks=[_RunClock(self), *callbacks],
        )
        # Labels come shifted, so every one of them is a target; the Trainer takes causal models to shift themselves.
        self._loss_shifts_labels = False
        self.statistics = StepStatistics(self.accelerator, step_cost(base_model(self.model).config))
        self.order: LengthGroupedSampler | MixtureSampler | None = None

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the Trainer's; an evaluation beforehand does no harm."""
        if self.model_wrapped is self.model:
            # Evaluating marks the model as prepared, and accelerate would then train it without joining gradients.
            self.model.__dict__.pop("_is_accelerate_prepared", None)
        return super().train(*args, **kwargs)

    # Data

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler | MixtureSampler:
        batch_size = self.rows_per_step
        if isinstance(self.train_dataset, Mixture):
            self.order = self.train_dataset.order(batch_size=batch_size)
            return self.order
        if self._train_lengths is None:
            with self.args.main_process_first(local=False, desc="measuring lengths"):
                self._train_lengths = measure_lengths(
                    self.train_dataset.rows,
                    self.processing_class,
                    num_workers=self.args.dataloader_num_workers,
                )
        self.order = LengthGroupedSampler(
            self._train_lengths,
            batch_size=batch_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return self.order

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """Evaluation rows keep their order, whatever the order of training."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step, over accumulation and processes."""
        return self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        start = time.perf_counter()
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.statistics.add_waiting(time.perf_counter() - start)
        return samples

    # Loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a micro-batch, divided by the labels of the whole step over all processes."""
        outputs = model(**self._model_inputs(inputs), num_items_in_batch=num_items_in_batch)
        # The gradients of the processes will be averaged, but the loss is already divided by the labels of all.
        across = num_items_in_batch is not None and self.args.average_tokens_across_devices
        scale = self.accelerator.num_processes if across else 1
        loss = outputs.loss * scale
        parts = {name: outputs.loss_components[name].detach() * scale for name in self.loss_counts(inputs)}
        self.statistics.add_losses(
            self.state.global_step + 1, inputs["sample_ids"], {"loss": loss.detach(), **parts}
        )
        self.statistics.add_size(inputs["size"])
        self.observe(inputs, outputs)
        return (loss, outputs) if return_outputs else loss

    def loss_counts(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor | int]:
        """The losses that the whole loss is the sum of, and how many things of the batch each is the mean over."""
        return {"lm_loss": inputs["labels"].ne(-100).sum()}

    def observe(self, inputs: dict[str, Any], outputs: Any) -> None:
        """See what a batch of training or evaluation gave; for what is to be logged beside the losses."""

    def _model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in inputs.items() if name not in _NOT_FOR_THE_MODEL}
        return {**kept, "use_cache": False, "skip_logits": True}

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """The loss of an evaluation batch; sums for the mean over the whole data set are kept aside."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**self._model_inputs(inputs))
        for name, count in self.loss_counts(inputs).items():
            loss = outputs.loss_components[name].detach().double()
            sums = torch.stack([loss * count, torch.as_tensor(count, device=loss.device).double()])
            self._eval_sums[name] = self._eval_sums.get(name, 0) + sums
        self.observe(inputs, outputs)
        return outputs.loss.detach().float(), None, None

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's, but losses are means over the whole data set, whatever the batches were."""
        self._eval_sums = {}
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        losses = {}
        for name, sums in self._eval_sums.items():
            total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
            losses[name] = total / max(1.0, count)
        output.metrics[f"{metric_key_prefix}_loss"] = sum(losses.values())
        if len(losses) > 1:
            output.metrics.update({f"{metric_key_prefix}_{name}": loss for name, loss in losses.items()})
        return output

    # Optimisation and log

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weights of linear and convolution layers; no biases, norms, embeddings, bare parameters or adapters."""
        return [
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and "lora_" not in name
        ]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return int(self.statistics.cost.flops(inputs["size"]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, throughput and peak memory to the training log lines."""
        if "loss" in logs:
            logs |= self.statistics.summary()
        super().log(logs, start_time)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.statistics.check()
        self._check_weights()
        self.store_flos()
        run_folder, step = self.args.folder, self.state.global_step
        barrier = self.accelerator.wait_for_everyone
        if self.state.best_global_step is not None:
            best = checkpoint_folder(run_folder, self.state.best_global_step)
            if best.is_dir() or self.state.best_global_step == step:
                self.state.best_model_checkpoint = str(best)
        with atomic_checkpoint(run_folder, step, is_writer=self.args.should_save, barrier=barrier) as folder:
            self.save_model(str(folder), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(folder))
                self._save_scaler(str(folder))
                self._save_rng_state(str(folder))
            if self.args.should_save:
                self._save_state(folder)
        if self.args.should_save:
            remove_old_checkpoints(run_folder, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _save_state(self, folder: Path) -> None:
        exportable = [
            cb for cb in [*self.callback_handler.callbacks, self.control] if isinstance(cb, ExportableState)
        ]
        for callback in exportable:
            self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def _check_weights(self) -> None:
        """A gradient can break the weights although the last loss was finite; such weights are not saved."""
        finite = [
            (parameter.to_local() if hasattr(parameter, "to_local") else parameter).isfinite().all()
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]
        broken = self.accelerator.reduce((~torch.stack(finite).all()).float(), reduction="sum")
        if broken.item():
            raise VividMedError(
                f"step {self.state.global_step}: the weights are not finite any more and are not saved; "
                "lower --learning_rate or --max_grad_norm and resume with --resume_from_checkpoint"
            )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir) if output_dir else self.args.folder
        # A pickle, and the only file that is unsafe to load; config.yaml holds the arguments.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        unwrapped = self.accelerator.unwrap_model(self.model)
        if isinstance(unwrapped, peft.PeftModel):
            peft.save_boundary_tokens(unwrapped, folder)

    def save_final(self) -> None:
        """Put the model and its processor into the output folder itself, each file complete or as it was before."""
        folder = self.args.folder
        aside = folder / ".final.partial"
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.write_final(aside)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(aside)
            for path in sorted(aside.iterdir()):
                path.replace(folder / path.name)
            aside.rmdir()

    def write_final(self, folder: Path) -> None:
        """Write what the run leaves behind; every process takes part."""
        self.save_model(str(folder), _internal_call=True)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
        """Upload what is in the output folder and may leave it; see :func:`vividmed.hub.publish.publish_model`.

        The Trainer's own upload would send everything there, answers and questions of the data included.
        """
        if self.is_world_process_zero():
            publish_model(self.args.folder, self.hub_model_id, public=self.args.hub_private_repo is False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        unwrapped = self.accelerator.unwrap_model(self.model if model is None else model)
        if isinstance(unwrapped, peft.PeftModel):
            peft.load_boundary_tokens(unwrapped, Path(resume_from_checkpoint))


def base_model(model: nn.Module) -> PreTrainedModel:
    """The model below its adapters."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


class _RunClock(TrainerCallback):
    """Tells the order its epoch, and the statistics when time counts as training."""

    def __init__(self, trainer: VividMedTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        order = self.trainer.order
        if order is not None:
            order.set_epoch(state.global_step * self.trainer.rows_per_step // len(order))
        self.trainer.statistics.start_clock()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.statistics.step_done()

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.statistics.start_clock()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.statistics.start_clock()
