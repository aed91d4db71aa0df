"""Peak memory of a training run by part, per GPU, from the arguments and the sizes of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from vividmed.training.estimation.activations import BatchShape, Stack
from vividmed.training.parameter_groups import muon_groups

GIB = 2**30
# Bytes per trained weight that optimizers keep, beside the weight and its gradient; 8-bit ones store a scale per block.
_OPTIMIZER_BYTES = {
    "adamw_8bit": 2 * (1 + 4 / 256),
    "paged_adamw_8bit": 2 * (1 + 4 / 256),
    "adamw_bnb_8bit": 2 * (1 + 4 / 256),
    "ademamix_8bit": 3 * (1 + 4 / 256),
    "paged_ademamix_8bit": 3 * (1 + 4 / 256),
    "lion_8bit": 1 + 4 / 256,
    "paged_lion_8bit": 1 + 4 / 256,
    "adamw_torch_4bit": 2 * (0.5 + 4 / 128),
    "adamw_torch_8bit": 2 * (1 + 4 / 256),
    "lion_32bit": 4,
    "paged_lion_32bit": 4,
    "ademamix": 12,
    "paged_ademamix_32bit": 12,
    "sgd": 0,
    "adagrad": 4,
    "rmsprop": 4,
    "adafactor": 0.1,
}
_ADAM_BYTES = 8
_MOMENTUM_BYTES = 4
# Of a driver's context, its kernels and the workspaces of matrix products.
GPU_CONTEXT = 0.8 * GIB
# Share of a GPU's memory that its allocator cannot use, because what is free lies in pieces.
_USABLE = 0.95


@dataclass(frozen=True)
class Sharding:
    """How the state of a run is divided among GPUs.

    Attributes:
        kind: ``none``, ``ddp``, ``fsdp2``, ``zero2`` or ``zero3``.
        gpus: number of GPUs.
    """

    kind: str = "none"
    gpus: int = 1

    @property
    def weights(self) -> int:
        """Number of GPUs among which weights are divided."""
        return self.gpus if self.kind in ("fsdp2", "zero3") else 1

    @property
    def gradients(self) -> int:
        """Number of GPUs among which gradients are divided."""
        return self.gpus if self.kind in ("fsdp2", "zero2", "zero3") else 1

    @property
    def optimizer(self) -> int:
        """Number of GPUs among which the optimizer's state is divided."""
        return self.gradients


@dataclass(frozen=True)
class StateBytes:
    """Memory of weights and of what training keeps for them, in the whole model.

    Attributes:
        weights: bytes of all weights as they are stored.
        gradients: bytes of the gradients of trained weights.
        optimizer: bytes of the optimizer's state.
        copies: bytes of the bfloat16 copies that autocast makes of float32 matrices.
        largest_layer: bytes of the largest layer in the precision of products, which sharding collects.
        dequantised: bytes of the largest quantised matrix in 16 bits.
        parameters: number of weights.
        trainable: number of trained weights.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    largest_layer: int
    dequantised: int
    parameters: int
    trainable: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one GPU in bytes, at the most expensive moment of training.

    Attributes:
        parts: bytes by name; activations depend on the batch, everything else does not.
        batch: the batch.
        peak: bytes at the most expensive moment, in which not all parts are at their largest.
    """

    parts: Mapping[str, float]
    batch: BatchShape
    peak: float
    stacks: Sequence[Stack] = field(default=(), repr=False)


def count_state(
    model: nn.Module, *, optimizer: str, bits: int, nested: bool, quantised: Sequence[str], autocast: bool
) -> StateBytes:
    """Count the bytes of a model's state.

    Args:
        model: on the meta device, with its adapter and with the precisions of the run.
        optimizer: ``muon``, or a name as ``--optim`` takes it.
        bits: 4 or 8 for a quantised model, else 16.
        nested: whether the scales of 4-bit weights are quantised themselves.
        quantised: names of the linear layers that are.
        autocast: whether products are computed in bfloat16.
    """
    names = {f"{name}.weight" for name in quantised}
    per_weight = 0.5 + (1 / 64 + 4 / (64 * 256) if nested else 4 / 64) if bits == 4 else 1.0
    rate = _OPTIMIZER_BYTES.get(optimizer, _ADAM_BYTES)
    hidden = set[int]()
    if optimizer == "muon":
        groups = muon_groups(model, weight_decay=0.0)
        hidden = {id(parameter) for group in groups if group["muon"] for parameter in group["params"]}
    weights = gradients = moments = copies = dequantised = parameters = trainable = 0.0
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        parameters += parameter.numel()
        if name in names:
            weights += parameter.numel() * per_weight
            dequantised = max(dequantised, parameter.numel() * 2)
        else:
            weights += size
        if parameter.requires_grad:
            trainable += parameter.numel()
            gradients += size
            # Small tensors and embeddings keep 32 bits in 8-bit optimizers.
            whole = parameter.numel() < 4096 or "embed_tokens" in name
            own = _MOMENTUM_BYTES if id(parameter) in hidden else rate
            moments += parameter.numel() * (_ADAM_BYTES if whole and own < 4 and own else own)
        if autocast and parameter.dtype == torch.float32 and parameter.ndim == 2 and "segmenter" not in name:
            copies += parameter.numel() * 2
    layers = [module for name, module in model.named_modules() if name.endswith(tuple("0123456789"))]
    product = 2 if autocast else 4
    largest = max((sum(p.numel() for p in layer.parameters()) * product for layer in layers), default=0)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    return StateBytes(
        int(weights + buffers),
        int(gradients),
        int(moments),
        int(copies),
        int(largest),
        int(dequantised),
        int(parameters),
        int(trainable),
    )


def estimate(
    state: StateBytes,
    stacks: Sequence[Stack],
    batch: BatchShape,
    *,
    sharding: Sharding,
    accumulates: bool,
    checkpointed: bool,
    gpu: bool,
    cache: float,
) -> MemoryEstimate:
    """Add up the memory of a step.

    Args:
        state: of the whole model.
        stacks: parts of the model in the order of the forward pass.
        batch: that the parts were measured with.
        sharding: how the state is divided.
        accumulates: whether gradients of earlier batches are there while the next one is computed.
        checkpointed: whether layers are computed again.
        gpu: whether it runs on an accelerator.
        cache: bytes of keys and values while answers are generated.
    """
    weights = state.weights / sharding.weights
    gradients = state.gradients / sharding.gradients
    optimizer = state.optimizer / sharding.optimizer
    collected = 2.0 * state.largest_layer if sharding.kind in ("fsdp2", "zero3") else 0.0
    if sharding.kind in ("ddp", "zero2") and sharding.gpus > 1:
        collected = float(state.gradients)
    # Sharded weights are cast layer by layer; others once per forward pass.
    copies = 0.0 if sharding.weights > 1 else float(state.copies)
    step = _step_peak(stacks, gradients, accumulates or sharding.gradients > 1, copies, checkpointed)
    activations = max(0.0, step - (gradients if accumulates else 0.0))
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": activations,
        "communication": collected,
        "dequantised layer": float(state.dequantised),
        "caches (evaluation)": cache,
        "GPU context": GPU_CONTEXT if gpu else 0.0,
    }
    fixed = weights + optimizer + collected + state.dequantised + parts["GPU context"]
    peak = fixed + max(step, gradients, cache)
    return MemoryEstimate({name: value for name, value in parts.items() if value}, batch, peak, stacks)


def _step_peak(
    stacks: Sequence[Stack], gradients: float, accumulates: bool, copies: float, checkpointed: bool
) -> float:
    """Most bytes of activations and gradients together in the forward and backward pass."""
    peak = kept = 0.0
    reached = []
    for stack in stacks:
        reached.append(kept)
        peak = max(peak, kept + stack.block.forward + (stack.count - 1) * stack.kept)
        kept += stack.count * stack.kept
    peak += copies + (gradients if accumulates else 0.0)
    # Backwards: gradients grow while what the forward pass has left is used up.
    done = 0.0
    for before, stack in zip(reversed(reached), reversed(stacks), strict=True):
        # The last block of a stack runs first, while all others are still there; the first one runs last.
        for left, finished in ((stack.count - 1, 0), (0, stack.count - 1)):
            grown = gradients if accumulates else done + (finished + 1) * stack.block.gradients
            peak = max(peak, before + left * stack.kept + stack.block.output + stack.block.working + grown)
        done += stack.count * stack.block.gradients
    return peak


def fits(found: MemoryEstimate, memory: float) -> bool:
    """Whether a run fits a GPU with so many bytes."""
    return found.peak <= memory * _USABLE


def with_samples(batch: BatchShape, samples: int) -> BatchShape:
    """The same batch with another number of samples."""
    return replace(batch, samples=samples)


def cache_bytes(config: Any, samples: int, tokens: int, dtype: torch.dtype) -> int:
    """Keys and values of a batch while answers are generated."""
    text = config.text_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    return 2 * text.num_hidden_layers * width * samples * tokens * dtype.itemsize
