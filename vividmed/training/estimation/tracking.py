"""Bytes of tensors that are alive, counted while code runs on tensors without data."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that are made while the mode is on, and the most bytes that were alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results."""
        results = func(*args, **(kwargs or {}))
        given = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        for tensor in tree_leaves(results):
            if _is_tensor(tensor) and id(tensor.untyped_storage()) not in given:
                self._add(tensor.untyped_storage())
        return results

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def forget(_: weakref.ref) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, forget)


class AcceleratorAutocast(TorchFunctionMode):
    """Adds what autocast does on accelerators only: norms, softmax and losses are computed and returned in float32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, its first argument in float32 where autocast asks for that."""
        if func in (F.layer_norm, F.softmax, F.cross_entropy) and args[0].dtype == torch.bfloat16:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class BlockCost:
    """Memory of a part of the model in one training step, in bytes and without its weights.

    Attributes:
        stored: what its forward pass leaves for its backward pass, its output included.
        output: the output, which is all that remains if the block is checkpointed.
        forward: most bytes in the forward pass.
        backward: most bytes in the backward pass, gradients of its weights included.
        gradients: gradients of its weights.
    """

    stored: int
    output: int
    forward: int
    backward: int
    gradients: int

    @property
    def working(self) -> int:
        """Most bytes in the backward pass beyond the gradients of weights."""
        return max(self.stored, self.backward - self.gradients)


def measure_block(
    run: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    parameters: list[torch.nn.Parameter],
) -> tuple[BlockCost, torch.Tensor]:
    """Run a part of the model forwards and backwards on tensors without data.

    Args:
        run: the part.
        inputs: what it takes; a gradient flows back to it if it requires one.
        parameters: of the part.

    Returns:
        Its cost, and an output like its own for the part that follows.
    """
    gradients = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    with LiveBytes() as tracker:
        output = run(inputs)
        stored, forward = tracker.live, tracker.peak
        backward = stored
        if output.requires_grad:
            tracker.peak = tracker.live
            output.backward(torch.ones_like(output))
            backward = tracker.peak
    for parameter in parameters:
        parameter.grad = None
    size = output.numel() * output.element_size()
    follows = torch.empty_like(output).requires_grad_(output.requires_grad)
    if not output.requires_grad:
        stored, gradients = size, 0
    return BlockCost(stored, size, forward, backward, gradients), follows


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
