"""Activation checkpointing of a stack of layers whose input is frozen."""

from collections.abc import Iterable

import torch
from torch import nn


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
