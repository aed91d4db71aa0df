"""Common to the stacks of layers: activation checkpointing, compilation, and the precision of hidden states."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


class CheckpointedLayer(GradientCheckpointingLayer):
    """A layer whose activations can be checkpointed and whose computation can be compiled.

    Subclasses define ``compute``, which takes the inputs of the layer and returns its hidden states, (T, C).

    Attributes:
        compiled: compiled form of the class's ``compute``, or None. Only training uses it. Activation checkpointing wraps
            it, so that the backward pass repeats compiled code.
    """

    compute: Callable[..., torch.Tensor]
    compiled: Callable[..., torch.Tensor] | None = None

    def forward(self, *inputs: Any) -> torch.Tensor:
        if self.compiled is None or not self.training:
            return self.compute(*inputs)
        return self.compiled(self, *inputs)


def compile_layers(
    model: nn.Module, *, backend: str | Callable[..., Any] = "inductor", mode: str | None = None
) -> int:
    """Compile the layers of a model for training. All layers of a class share one compilation.

    Shapes are dynamic: batches of other lengths use the same code. Attention within images depends on the images of each
    batch and is not compiled (methods named ``attend``).

    Args:
        model: any model with layers of :class:`CheckpointedLayer`.
        backend: of ``torch.compile``.
        mode: of ``torch.compile``.

    Returns:
        Number of layers that are compiled; 0 for a segmenter by itself.
    """
    shared: dict[type, Callable[..., torch.Tensor]] = {}
    count = 0
    for module in model.modules():
        if isinstance(module, CheckpointedLayer):
            kind = type(module)
            if kind not in shared:
                shared[kind] = torch.compile(kind.compute, dynamic=True, backend=backend, mode=mode)
            module.compiled = shared[kind]
            count += 1
        elif hasattr(module, "attend"):
            module.attend = torch.compiler.disable(module.attend)
    return count


def stream_dtype(weight: torch.Tensor, states: torch.Tensor) -> torch.dtype:
    """The dtype of the residual stream.

    It is that of frozen weights in half precision. Autocast alone would promote the stream to float32, in norms and in
    modules that are trained in float32, and double its memory.

    Args:
        weight: of a linear layer of the stack. If it is quantised, the stream has the dtype of autocast.
        states: the stream. If the weight is in float32, its dtype does not change.
    """
    device = states.device.type
    if weight.dtype in (torch.bfloat16, torch.float16):
        return weight.dtype
    if not weight.dtype.is_floating_point and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return states.dtype


def differentiable_input(states: torch.Tensor, layers: Iterable[nn.Module]) -> torch.Tensor:
    """The input of a stack of layers, in a form that keeps their gradients under reentrant checkpointing.

    Reentrant checkpointing only differentiates a layer if one of its input tensors requires a gradient. The input of
    the first layer does not if the embeddings below it are frozen, as they are when adapters are trained. It is then
    made to require one, although nothing uses it.

    Args:
        states: input of the first layer.
        layers: modules with the attribute ``gradient_checkpointing``.
    """
    layers = list(layers)
    if states.requires_grad or not torch.is_grad_enabled():
        return states
    checkpointed = any(getattr(layer, "gradient_checkpointing", False) and layer.training for layer in layers)
    if checkpointed and any(parameter.requires_grad for layer in layers for parameter in layer.parameters()):
        return states.detach().requires_grad_()
    return states
