"""Which weights decay, and which of them Muon updates."""

from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


def decayed_names(model: nn.Module) -> list[str]:
    """Names of the weights of linear and convolution layers, adapters excluded, as published."""
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and "lora_" not in name
    ]


def muon_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of a model's trained parameters for :class:`vividmed.training.muon.Muon`.

    Args:
        model: with or without an adapter. Its embeddings and output layer are no hidden layers, and matrices of an
            adapter are factors of one; AdamW updates them.
        weight_decay: of the weights of linear and convolution layers.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``muon``; none is empty.
    """
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel | PeftModel) else None
    outside = set() if output is None else {id(parameter) for parameter in output.parameters()}
    decayed = set(decayed_names(model))
    hidden, others, undecayed = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in decayed:
            undecayed.append(parameter)
        elif parameter.ndim == 2 and id(parameter) not in outside:
            hidden.append(parameter)
        else:
            others.append(parameter)
    groups = [
        {"params": hidden, "weight_decay": weight_decay, "muon": True},
        {"params": others, "weight_decay": weight_decay, "muon": False},
        {"params": undecayed, "weight_decay": 0.0, "muon": False},
    ]
    return [group for group in groups if group["params"]]
