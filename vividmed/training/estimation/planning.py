"""A run's model on the meta device: its weights as they would be trained, and the cost of its parts."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

from vividmed.errors import VividMedError
from vividmed.models.adapters.merging import checkpoint_files
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.loading import check_complete
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.quantization import FULL_PRECISION_MODULES
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.adapted_model import AdaptedVividMed
from vividmed.training.adapters.groups import GROUNDING_MODULES
from vividmed.training.adapters.peft import read_adapter_config
from vividmed.training.estimation.activations import (
    BatchShape,
    Stack,
    measure_segmenters,
    measure_stacks,
    place_on_cpu,
    without_data,
)
from vividmed.training.estimation.estimate import (
    MemoryEstimate,
    Sharding,
    StateBytes,
    cache_bytes,
    count_state,
    estimate,
    fits,
    with_samples,
)
from vividmed.training.estimation.tracking import BlockCost
from vividmed.training.loading import prepare_for_training
from vividmed.training.segmenters import freeze_modules
from vividmed.training.settings.arguments import TextDataArguments, VividMedTrainingArguments
from vividmed.training.settings.model_arguments import ModelArguments


class RunPlan:
    """A language model as a run would train it, and estimates of the memory that this takes.

    Args:
        config: of the base model, with its segmenters.
        processor: of the model.
        model_args: how it is trained.
        data_args: lengths.
        training_args: batch size, precision, optimizer, checkpointing.
        frozen: top-level modules that the stage does not train.
        adapter: folder of the adapter whose training continues, if there is one.
        grounds: whether the segmenters take part in training.
        sharding: how the state is divided among GPUs.
        gpu: whether it runs on an accelerator.
    """

    def __init__(
        self,
        config: VividMedConfig,
        processor: VividMedProcessor,
        *,
        model_args: ModelArguments,
        data_args: TextDataArguments,
        training_args: VividMedTrainingArguments,
        frozen: Sequence[str],
        adapter: Path | None = None,
        grounds: bool = False,
        sharding: Sharding = Sharding(),  # noqa: B008
        gpu: bool = True,
    ):
        self.config, self.processor = config, processor
        self.model_args, self.data_args, self.args = model_args, data_args, training_args
        self.frozen, self.adapter, self.grounds = frozen, adapter, grounds
        self.sharding, self.gpu = sharding, gpu
        self.dtype = weight_dtype(model_args, config)
        with torch.device("meta"):
            self.base = self._build(config)
            self.quantised = self._quantised(self.base) if self._bits < 16 else []
            self.model = self._prepare(self.base)
        if self.model_args.use_peft:
            wrapped = {name for name, _ in self.model.named_modules()}
            layers = (f"base_model.model.{name}" for name in self.quantised)
            self.quantised = [
                f"{name}.base_layer" if f"{name}.base_layer" in wrapped else name for name in layers
            ]
        self.autocast = self._autocasts()
        self.state = self._count()
        self._costs: dict[tuple[int, int], list[Stack]] = {}

    @property
    def batch(self) -> BatchShape:
        """The largest batch of the run: images that fill their budget, sequences that fill theirs."""
        images = self.processor.image_processor
        pool = images.pool_size
        return BatchShape(
            samples=self.args.per_device_train_batch_size,
            tokens=self.data_args.max_length,
            image_tokens=images.max_image_tokens,
            patches=images.max_image_tokens * pool[0] * pool[1] * pool[2],
            patch_size=tuple(images.patch_size),
        )

    def bare(self) -> PreTrainedModel:
        """The base model on the meta device, without an adapter."""
        with torch.device("meta"):
            return self._build(self.config)

    @property
    def checkpointed(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return bool(getattr(self.args, "activation_checkpointing", False) or self.args.gradient_checkpointing)

    def estimate(self, samples: int | None = None, tokens: int | None = None) -> MemoryEstimate:
        """Estimate the memory of a GPU.

        Args:
            samples: number of samples per GPU; by default that of the run.
            tokens: longest sequence; by default that of the run.
        """
        batch = self.batch
        batch = replace(batch, samples=samples or batch.samples, tokens=tokens or batch.tokens)
        answers = getattr(self.args, "generation_max_new_tokens", 0)
        cache = 0
        if self.args.eval_strategy != "no":
            rows = self.args.per_device_eval_batch_size
            cache = cache_bytes(self.config, rows, self.data_args.max_length + answers, self.dtype)
        return estimate(
            self.state,
            self._stacks(batch),
            batch,
            sharding=self.sharding,
            accumulates=self.args.gradient_accumulation_steps > 1,
            checkpointed=self.checkpointed,
            gpu=self.gpu,
            cache=cache,
        )

    def largest_batch(self, memory: float, limit: int = 1024) -> int:
        """The most samples per GPU whose estimate fits; 0 if none does."""
        best = 0
        step = limit
        while step:
            if best + step <= limit and fits(self.estimate(best + step), memory):
                best += step
            step //= 2
        return best

    def _stacks(self, batch: BatchShape) -> list[Stack]:
        """Costs of a batch, from three measured ones: they grow in proportion to samples, and to their tokens."""
        full = self.data_args.max_length
        short = max(batch.image_tokens + 8, full // 2)
        measured = [self._measured(1, full), self._measured(2, full)]
        n, length = batch.samples, batch.tokens / full
        if short >= full or batch.tokens == full:
            factors: tuple[float, ...] = (2 - n, n - 1)
        else:
            measured.append(self._measured(1, short))
            slope = 1 / (1 - short / full)
            factors = (2 - n * (1 + slope) + n * length * slope, n - 1, n * slope * (1 - length))
        return [_combined(stacks, factors) for stacks in zip(*measured, strict=True)]

    def _measured(self, samples: int, tokens: int) -> list[Stack]:
        key = samples, tokens
        if key not in self._costs:
            batch = replace(with_samples(self.batch, samples), tokens=tokens)
            counts = {
                "vision": self.config.vision_config.num_hidden_layers,
                "decoder": self.config.text_config.num_hidden_layers,
            }
            config = VividMedConfig.from_dict(self.config.to_dict())
            config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
            with torch.device("meta"):
                model = self._prepare(self._build(config))
            with without_data():
                place_on_cpu(model)
                inner: Any = model.get_base_model() if self.model_args.use_peft else model
                inner.train()
                stacks = measure_stacks(
                    inner, counts, batch, checkpointed=self.checkpointed, autocast=self.autocast, gpu=self.gpu
                )
                if self.grounds:
                    stacks += measure_segmenters(inner, batch)
            self._costs[key] = stacks
        return self._costs[key]

    def _build(self, config: VividMedConfig) -> PreTrainedModel:
        model: Any = VividMedForCausalLM._from_config(config, dtype=self.dtype, attn_implementation="sdpa")
        for name in GROUNDING_MODULES:
            if getattr(model, name, None) is not None:
                getattr(model, name).float()
        return model

    def _prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        if self.adapter is None:
            # Settings of PEFT are changed while it is applied.
            args = copy.deepcopy(self.model_args)
            return prepare_for_training(model, args, self.processor, adapter=None, frozen=self.frozen)
        config = read_adapter_config(self.adapter)
        config.inference_mode = False
        adapted = AdaptedVividMed(model, config)
        freeze_modules(adapted, self.frozen)
        return adapted

    @property
    def _bits(self) -> int:
        return 4 if self.model_args.load_in_4bit else 8 if self.model_args.load_in_8bit else 16

    def _quantised(self, model: PreTrainedModel) -> list[str]:
        return [
            name
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and should_convert_module(name, list(FULL_PRECISION_MODULES))
        ]

    def _autocasts(self) -> bool:
        if self.args.bf16 or self.args.fp16 or self.args.mixed_precision in ("bf16", "fp16"):
            return True
        if self.gpu and self.args._bf16_asked is None:
            # The default on GPUs, whatever machine the plan is made on.
            return True
        types = {weight.dtype for weight in self.model.parameters()}
        return self.model_args.trainable_dtype == "float32" and types != {torch.float32}

    def _count(self) -> StateBytes:
        return count_state(
            self.model,
            optimizer=self.args.optimizer_name,
            bits=self._bits,
            nested=bool(self.model_args.use_bnb_nested_quant),
            quantised=self.quantised,
            autocast=self.autocast,
        )


def weight_dtype(args: ModelArguments, config: VividMedConfig) -> torch.dtype:
    """Precision of the frozen weights."""
    if args.dtype in (None, "auto"):
        return getattr(config, "dtype", None) or torch.float32
    return getattr(torch, str(args.dtype))


def check_weights(folder: Path, model: PreTrainedModel) -> int:
    """Compare the names and shapes of a checkpoint's tensors with those of the model, without reading a value.

    Args:
        folder: of the checkpoint.
        model: the model that its configuration describes, on the meta device.

    Returns:
        Number of tensors found.

    Raises:
        VividMedError: a file cannot be read, or tensors are missing or have other shapes.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in checkpoint_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise VividMedError(
                f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); download or save it again"
            ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    check_complete(str(folder), wanted.keys() - found.keys() - tied)
    if other := sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name]):
        raise VividMedError(
            f"{folder}: {len(other)} tensors have other shapes than config.json asks for ({other[0]}: {found[other[0]]}, "
            f"not {wanted[other[0]]}); the configuration does not belong to these weights"
        )
    return len(found)


def _combined(stacks: Sequence[Stack], factors: Sequence[float]) -> Stack:
    names = ("stored", "output", "forward", "backward")
    values = {
        name: max(
            0, int(sum(f * getattr(stack.block, name) for f, stack in zip(factors, stacks, strict=True)))
        )
        for name in names
    }
    return replace(stacks[0], block=BlockCost(**values, gradients=stacks[0].block.gradients))
