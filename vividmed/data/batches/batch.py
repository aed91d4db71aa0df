"""Batches that go from a data loader's worker to the trainer in one piece."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch


class Batch(dict[str, Any]):
    """A batch by name, whose tensors are sent to another process together.

    torch passes every tensor to another process as a shared file of its own, which takes about half a millisecond for each.
    Images of different sizes cannot be stacked, so a batch has dozens of tensors. When it is pickled, its tensors are
    joined; on arrival, they are views of what was joined.
    """

    def __copy__(self) -> "Batch":
        return Batch(self)

    def __reduce__(self) -> tuple[Any, ...]:
        tensors: list[torch.Tensor] = []
        content = _take_out(dict(self), tensors)
        # The widest types first, so that each begins at a multiple of its width.
        order = sorted(
            range(len(tensors)), key=lambda index: (-tensors[index].itemsize, str(tensors[index].dtype))
        )
        ordered = [tensors[index] for index in order]
        runs = [list(run) for _, run in groupby(ordered, key=lambda tensor: tensor.dtype)]
        joined = torch.cat([torch.cat(run).view(torch.uint8) for run in runs]) if runs else torch.empty(0)
        places = [(index, tensor.dtype, tensor.nbytes) for index, tensor in zip(order, ordered, strict=True)]
        return _restored, (content, joined, places)


@dataclass(frozen=True)
class _Place:
    """Where a tensor was taken out; it has a single value if that is repeated."""

    index: int
    shape: torch.Size


def _take_out(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A copy of dictionaries and lists with places instead of tensors, which are appended as (values,)."""
    if isinstance(value, dict):
        return {name: _take_out(item, tensors) for name, item in value.items()}
    if isinstance(value, list):
        return [_take_out(item, tensors) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    repeated = value.numel() > 1 and not any(value.stride())
    tensors.append(value.as_strided((1,), (0,)) if repeated else value.reshape(-1))
    return _Place(len(tensors) - 1, value.shape)


def _restored(content: Any, joined: torch.Tensor, places: list[tuple[int, torch.dtype, int]]) -> Batch:
    parts = joined.split([size for _, _, size in places])
    tensors = {index: part.view(dtype) for (index, dtype, _), part in zip(places, parts, strict=True)}
    return Batch(_put_back(content, tensors))


def _put_back(value: Any, tensors: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _put_back(item, tensors) for name, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, tensors) for item in value]
    if not isinstance(value, _Place):
        return value
    tensor = tensors[value.index]
    return tensor.view(value.shape) if tensor.numel() == value.shape.numel() else tensor.expand(value.shape)
