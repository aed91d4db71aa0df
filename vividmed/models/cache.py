"""The decoder's cache: its names in transformers, and layers that grow without copying what they have.

The argument is ``past_key_values`` up to transformers 5.23, and ``cache`` from 5.24 on. This is the only place that knows the
difference. The model takes both names and returns the library's own.
"""

from dataclasses import fields
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from vividmed.errors import VividMedError

_LEAST_ROOM = 64
"""Tokens that a growing layer leaves room for, at least."""

CACHE_NAMES = ("past_key_values", "cache")
CACHE_NAME = (
    "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
)


def as_cache_argument(cache: Cache | None) -> dict[str, Any]:
    """The cache as a keyword argument of the library's functions and outputs."""
    return {CACHE_NAME: cache}


def single_cache(past_key_values: Cache | None, cache: Cache | None) -> Cache | None:
    """The cache that was passed under either name.

    Raises:
        VividMedError: both names were used.
    """
    if past_key_values is not None and cache is not None:
        raise VividMedError("cache and past_key_values are two names of one argument: pass only one of them")
    return past_key_values if cache is None else cache


class GrowingLayer(DynamicLayer):
    """Layer of a dynamic cache that writes new tokens behind the old ones, where its base class copies all of them.

    Keys and values are the first part of tensors with room for more. After an operation that replaces them (reordering,
    cropping), the next update copies them once. Keys and values are (batch, heads, tokens, head width).
    """

    keys: torch.Tensor | None
    values: torch.Tensor | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms: list[torch.Tensor] = []
        self._written: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled():  # gradients need what was there before
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self._has_room(end):
            self._rooms = [_with_room(new, end) for new in (key_states, value_states)]
            if self.keys is not None and self.values is not None and length:
                for room, old in zip(self._rooms, (self.keys, self.values), strict=True):
                    room[..., :length, :] = old
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., length:end, :] = new
        keys, values = (room[..., :end, :] for room in self._rooms)
        self.keys, self.values = self._written = keys, values
        return keys, values

    def reset(self) -> None:
        """Forget all tokens."""
        self._rooms, self._written = [], None
        super().reset()

    def _has_room(self, end: int) -> bool:
        if self._written is None or self.keys is not self._written[0] or self.values is not self._written[1]:
            return False
        room = self._rooms[0]
        # What was made in inference mode cannot be written outside of it.
        return room.shape[-2] >= end and (torch.is_inference_mode_enabled() or not room.is_inference())


def growing(cache: Cache) -> Cache:
    """The cache; if it is an empty dynamic one, its layers are exchanged for :class:`GrowingLayer`."""
    if type(cache) is DynamicCache and not cache.offloading and cache.get_seq_length() == 0:
        cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
        if cache.layer_class_to_replicate is DynamicLayer:
            cache.layer_class_to_replicate = GrowingLayer
    return cache


def _with_room(states: torch.Tensor, length: int) -> torch.Tensor:
    """An empty tensor for ``length`` tokens and more."""
    *lead, _, width = states.shape
    return states.new_empty(*lead, length + max(_LEAST_ROOM, length // 8), width)
