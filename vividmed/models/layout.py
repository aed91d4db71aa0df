"""How samples lie in the rows of a batch: padded on either side, or several packed into one row.

Everything is derived from two tensors that the caller passes, the attention mask and the position ids. A packed row
is recognised by either of them: mask values above 1 number its samples, and positions that decrease start a new one
(the padding-free convention of transformers, which passes no mask). Within a sample positions may repeat, because
image patches share one and phrase markers do not advance them, but they never decrease.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache

from vividmed.errors import VividMedError


@dataclass(frozen=True)
class TokenInfo:
    """Attributes of each token of a (B, L) batch, as the caller gives them; see the arguments of ``VividMedModel.forward``.

    Attributes:
        attention_mask: (B, cached tokens + L), or a mask that ``generate`` has prepared, or None.
        position_ids: (B, L), (1, L) or None.
        token_type_ids: (B, L) or None.
        turn_ids: (B, L) or None.
    """

    attention_mask: Any = None
    position_ids: torch.Tensor | None = None
    token_type_ids: torch.Tensor | None = None
    turn_ids: torch.Tensor | None = None

    @property
    def padding_mask(self) -> torch.Tensor | None:
        """The attention mask, unless it was prepared for an attention implementation and says nothing of padding."""
        mask = self.attention_mask
        return mask if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None

    def check(self, shape: tuple[int, int], cached: int | None) -> None:
        """Check that each tensor has one entry per token.

        Args:
            shape: (B, L) of the batch.
            cached: number of tokens in the cache, which an attention mask covers as well; None without a cache.

        Raises:
            VividMedError: a tensor has another shape.
        """
        with_cache = {(shape[0], cached + shape[1])} if cached is not None else set()
        for name, tensor, allowed in (
            ("attention_mask", self.padding_mask, {shape} | with_cache),
            ("position_ids", self.position_ids, {shape, (1, shape[1])}),
            ("token_type_ids", self.token_type_ids, {shape}),
            ("turn_ids", self.turn_ids, {shape}),
        ):
            check_shape(name, tensor, allowed)


def check_shape(name: str, tensor: torch.Tensor | None, allowed: Collection[tuple[int, ...]]) -> None:
    """Check that a tensor with one entry per token fits its batch.

    Args:
        name: of the argument.
        tensor: or None, which fits.
        allowed: shapes that fit.

    Raises:
        VividMedError: the tensor has another shape.
    """
    if tensor is not None and tuple(tensor.shape) not in allowed:
        wanted = " or ".join(map(str, sorted(allowed)))
        raise VividMedError(
            f"{name} has shape {tuple(tensor.shape)} but the batch needs {wanted} (samples, tokens): "
            "pass all tensors as the processor returned them"
        )


def number_samples(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    shape: tuple[int, int],
    turn_ids: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Number the samples within each row.

    Args:
        attention_mask: (B, L), 0 at padding; values above 1 number the samples packed into a row.
        position_ids: (B, L) or (1, L).
        shape: (B, L).
        turn_ids: (B, L) or None; positions also decrease where a next turn of the same sample starts.

    Returns:
        (B, L) int64, 0 at padding, else the number of the token's sample in its row; None if each row is one sample
        without padding.
    """
    if position_ids is None or shape[1] < 2:
        return attention_mask
    position_ids = position_ids.expand(shape)
    restarts = F.pad(position_ids[:, 1:] < position_ids[:, :-1], (1, 0))
    if turn_ids is not None:
        restarts &= F.pad(turn_ids[:, 1:] <= turn_ids[:, :-1], (1, 0))
    if attention_mask is not None:
        same_sample = F.pad(attention_mask[:, 1:] == attention_mask[:, :-1], (1, 0))
        restarts &= same_sample & (attention_mask > 0)
    if not bool(restarts.any()):
        return attention_mask
    numbers = torch.ones_like(position_ids) if attention_mask is None else attention_mask.long()
    return (numbers + restarts.cumsum(1)) * (numbers > 0)


def is_packed(samples: torch.Tensor | None) -> bool:
    """Whether a row contains more than one sample; ``samples`` as :func:`number_samples` returns them."""
    return samples is not None and samples.numel() > 0 and bool(samples.max() > 1)


def count_positions(
    padding_mask: torch.Tensor | None, shape: tuple[int, int], cache: Cache | None, device: torch.device
) -> torch.Tensor:
    """Default positions, (B, L) or (1, L): real tokens counted from 0, cached ones included.

    Args:
        padding_mask: (B, cached tokens + L), 0 at padding, or None.
        shape: (B, L).
        cache: the tokens before these.
        device: device of the result.
    """
    if padding_mask is not None:
        return (padding_mask > 0).long().cumsum(1).sub(1).clamp(min=0)[:, -shape[1] :]
    seen = cache.get_seq_length() if cache is not None else 0
    return (torch.arange(shape[1], device=device) + seen)[None]


def lay_end_to_end(
    position_ids: torch.Tensor, samples: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Positions (1, N) of the real tokens of a (B, L) batch, and the lengths of its samples for attention kernels."""
    if samples is None:
        batch_size, length = position_ids.shape
        return position_ids.reshape(1, -1), sequence_lengths([length] * batch_size, position_ids.device)
    rows, numbers = samples.nonzero(as_tuple=True)[0], samples[samples > 0]
    _, lengths = torch.stack([rows, numbers]).unique_consecutive(dim=1, return_counts=True)
    return position_ids[samples > 0][None], sequence_lengths(lengths.tolist(), position_ids.device)


def sequence_lengths(lengths: list[int], device: torch.device) -> dict[str, Any]:
    """Arguments of attention kernels for sequences laid end to end."""
    cumulative = F.pad(torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))
    return {
        "cu_seq_lens_q": cumulative.to(device),
        "cu_seq_lens_k": cumulative.to(device),
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def same_sample(samples: torch.Tensor) -> Callable:
    """A mask function that keeps attention within each packed sample; ``samples`` (B, L) are their numbers."""

    def mask_function(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return samples[batch_idx, q_idx] == samples[batch_idx, kv_idx]

    return mask_function


def same_turn(turn_ids: torch.Tensor) -> Callable:
    """A mask function that hides other turns from each turn; all of them see what stands before (``turn_ids`` 0)."""

    def mask_function(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        key = turn_ids[batch_idx, kv_idx]
        return (key == 0) | (key == turn_ids[batch_idx, q_idx])

    return mask_function


def within_window(window: int) -> Callable:
    """A mask function that keeps attention within the last ``window`` tokens, the querying one included."""

    def mask_function(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx > q_idx - window

    return mask_function


def check_token_ids(input_ids: torch.Tensor, vocab_size: int) -> None:
    """Check that every token id is a row of the embedding table.

    Raises:
        VividMedError: an id is negative or beyond the vocabulary.
    """
    if not input_ids.numel():
        return
    lowest, highest = input_ids.min(), input_ids.max()
    if bool((lowest < 0) | (highest >= vocab_size)):
        wrong = int(lowest) if lowest < 0 else int(highest)
        raise VividMedError(
            f"input_ids contain {wrong}, but token ids run from 0 to {vocab_size - 1}: "
            "use the tokenizer that was saved with the model"
        )
