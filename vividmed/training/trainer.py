"""The Trainer that all stages share."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.length_grouped import BATCHES_SORTED_TOGETHER, LengthGroupedSampler
from vividmed.data.sampling.lengths import measure_lengths
from vividmed.data.sampling.mixture import Mixture, keyed_rows
from vividmed.data.sampling.mixture_sampler import MixtureSampler
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.terms import Terms
from vividmed.errors import VividMedError
from vividmed.models.layer_stack import compile_layers
from vividmed.training.generated_metrics import GeneratedMetrics
from vividmed.training.launching import check_processes
from vividmed.training.muon import Muon
from vividmed.training.parameter_groups import decayed_names, muon_groups
from vividmed.training.runs.resumable_trainer import ResumableTrainer
from vividmed.training.schedule import keep_rate_between_updates
from vividmed.training.settings.arguments import VividMedTrainingArguments
from vividmed.training.step_statistics import StepStatistics
from vividmed.training.streaming import continue_stream, stream_loader
from vividmed.training.throughput import step_cost

logger = logging.getLogger(__name__)

# Parts of a batch that are for people and bookkeeping, not for the model.
_NOT_FOR_THE_MODEL = ("sample_ids", "size", "geometry", "num_samples", "target_names")


class VividMedTrainer(ResumableTrainer):
    """A :class:`ResumableTrainer` for rows of images and conversations.

    It adds:

    - batches of similar length, in an order that depends only on seed and epoch;
    - the loss per supervised token over accumulation steps and processes;
    - named parts of the loss, throughput and peak memory in the log, without waiting for the device at each step;
    - a stop at the first non-finite loss;
    - weight decay on the weights of linear and convolution layers only, as published;
    - with ``torch_compile``, layers that are compiled, instead of the whole model, which every batch would compile anew.

    Args:
        model: a ``VividMedForCausalLM``, with or without an adapter.
        args: arguments of the run.
        processing_class: the ``VividMedProcessor``, which is saved with the model.
        data_collator: a ``VividMedCollator``.
        train_dataset: rows, a mixture of data sets, or its stream, made for the batch size and processes of ``args``.
        eval_dataset: rows to evaluate on.
        train_lengths: tokens of each training row; measured from image headers and text by default.
        callbacks: additional callbacks.
        provenance: terms of everything that the weights come from, see :mod:`vividmed.training.runs.provenance`; by
            default those of the rows' sources.

    Raises:
        VividMedError: the processes cannot train together, or the model has no layers to compile.
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
        provenance: Sequence[Terms] | None = None,
    ):
        if args.n_gpu > 1:
            raise VividMedError(
                f"one process sees {args.n_gpu} GPUs: start with `accelerate launch`, one process per GPU, "
                "or set CUDA_VISIBLE_DEVICES to one of them"
            )
        check_processes(args.world_size)
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
            provenance=provenance,
        )
        if args.torch_compile:
            if not compile_layers(
                self.model, backend=args.torch_compile_backend, mode=args.torch_compile_mode
            ):
                raise VividMedError(
                    "--torch_compile has no effect on a segmenter by itself, whose layers are not compiled; leave it out"
                )
            # Not the whole model as well, whose code depends on every batch.
            self.accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
        # Labels come shifted, so each is a target; the Trainer assumes that causal models shift them.
        self._loss_shifts_labels = False
        self.statistics = StepStatistics(self.accelerator, step_cost(base_model(self.model).config))
        self.order: LengthGroupedSampler | MixtureSampler | None = None
        self.generated_metrics: GeneratedMetrics | None = None

    # Data

    def get_train_dataloader(self) -> DataLoader:
        if isinstance(self.train_dataset, MixtureStream):
            return stream_loader(
                self.train_dataset, self.args, batch_size=self._train_batch_size, collate=self.data_collator
            )
        return super().get_train_dataloader()

    def _run_epoch(self, **kwargs: Any) -> None:
        if isinstance(self.train_dataset, MixtureStream):
            kwargs |= continue_stream(self.train_dataset, self.state, self.rows_per_step, kwargs)
        super()._run_epoch(**kwargs)

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
            pool_size=1 if self.args.train_sampling_strategy == "random" else BATCHES_SORTED_TOGETHER,
        )
        return self.order

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """Keep evaluation rows in their order, independent of the order of training."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    @property
    def rows_per_step(self) -> int:
        """Rows per optimizer step, over accumulation and processes."""
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
        """Compute the loss of a micro-batch, divided by the number of labels in the whole step over all processes."""
        outputs = model(**self._model_inputs(inputs), num_items_in_batch=num_items_in_batch)
        # Gradients are averaged over processes later, but the loss is already divided by the labels of all of them.
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
        """Names of the losses that add up to the whole loss, with the number of items in the batch each averages."""
        return {"lm_loss": inputs["labels"].ne(-100).sum()}

    def observe(self, inputs: dict[str, Any], outputs: Any) -> None:
        """Receive the outputs of each training and evaluation batch; for subclasses that log more than losses."""

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
        """Compute the loss of an evaluation batch, and add it to the sums for the whole data set."""
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
        """Like ``Trainer.evaluation_loop``, but losses are means over the whole data set, independent of batches."""
        self._eval_sums = {}
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        losses = {}
        for name, sums in self._eval_sums.items():
            total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
            losses[name] = total / max(1.0, count)
        output.metrics[f"{metric_key_prefix}_loss"] = sum(losses.values())
        if len(losses) > 1:
            output.metrics.update({f"{metric_key_prefix}_{name}": loss for name, loss in losses.items()})
        if self.generated_metrics is not None:
            generated = self.generated_metrics(self.model)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in generated.items()})
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Like the ``Trainer``'s, but an evaluation without the chosen metric is not the best, and not an error."""
        name = self.args.metric_for_best_model
        if name is not None and f"eval_{name.removeprefix('eval_')}" not in metrics:
            logger.warning("step %d: the evaluation does not give %s", self.state.global_step, name)
            return False
        return super()._determine_best_metric(metrics, trial)

    # Optimisation and log

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Like the ``Trainer``'s, or :class:`Muon` if the arguments ask for it.

        Raises:
            VividMedError: Muon is asked for where weights are sharded.
        """
        if self.args.muon and self.optimizer is None:  # type: ignore[has-type]
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise VividMedError(
                    "--muon needs whole matrices, which FSDP and DeepSpeed divide; set --muon false, or train with DDP"
                )
            model = self.model if model is None else model
            groups = muon_groups(model, weight_decay=self.args.weight_decay)
            args = self.args
            betas = (args.adam_beta1, args.adam_beta2)
            self.optimizer = Muon(groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        return keep_rate_between_updates(scheduler, self.args.lr_update_steps)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return decayed_names(model)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return int(self.statistics.cost.flops(inputs["size"]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, throughput and peak memory to the training log lines."""
        if "loss" in logs:
            logs |= self.statistics.summary()
        super().log(logs, start_time)


def base_model(model: nn.Module) -> PreTrainedModel:
    """The model without its adapter."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


class _RunClock(TrainerCallback):
    """Sets the epoch of the sampler, and starts and stops the clock of the statistics."""

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
