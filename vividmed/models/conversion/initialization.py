"""Initial values of single tensors of a model that is on the meta device."""

import copy
import hashlib

import torch
from torch import nn
from transformers import PreTrainedModel

from vividmed.errors import VividMedError


def new_tensor(model: nn.Module, name: str, *, seed: int) -> torch.Tensor:
    """The initial value of a tensor, drawn as the model's initialisation draws it.

    It depends on the seed and the name only, so that it is the same in whatever order tensors are made.

    Args:
        model: model on the meta device.
        name: of a parameter or buffer.
        seed: random seed.

    Raises:
        VividMedError: the model does not initialise it.
    """
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    owner = _initialiser(model, path)
    alone = copy.copy(module)
    alone._parameters, alone._buffers = dict(module._parameters), dict(module._buffers)
    alone.to_empty(device="cpu", recurse=False)
    digest = hashlib.sha256(f"{seed} {path}".encode()).digest()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int.from_bytes(digest[:8], "little") % (1 << 63))
        for tensor in alone.state_dict().values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        owner._init_weights(alone)
    value = alone.state_dict()[leaf]
    if value.is_floating_point() and bool(value.isnan().any()):
        raise VividMedError(f"{name} has no initial value; give a checkpoint that contains it")
    return value


def _initialiser(model: nn.Module, path: str) -> PreTrainedModel:
    """The innermost pre-trained model around a module, whose rules apply to it."""
    found, module = model, model
    for part in path.split(".") if path else ():
        module = getattr(module, part)
        if isinstance(module, PreTrainedModel):
            found = module
    if not isinstance(found, PreTrainedModel):
        raise TypeError(f"{type(model).__name__} is not a pre-trained model")
    return found
