"""Attention on sequences of different lengths that lie end to end.

Linear layers and norms see all tokens of all images at once, in one call whatever the images' sizes; only the
attention itself runs once for each group of equally long sequences. Nothing is padded, and each layer runs exactly
once in a forward pass, even for an empty batch, which sharded training (FSDP) needs in every process.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class SequenceGroup(NamedTuple):
    """``batch_size`` equally long sequences: each of ``query_length`` queries that attend to ``key_length`` keys."""

    batch_size: int
    query_length: int
    key_length: int


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out; (B, heads, L, head_dim) to (B, L, heads, head_dim) and the weights.

    Keys and values may have fewer heads than queries: each then serves several of them.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class RaggedAttention(nn.Module):
    """Multi-head attention between flat rows of queries and keys; subclasses add the projections.

    Args:
        config: configuration with the attention implementation (``config._attn_implementation``).
        num_heads: number of heads.
        inner_size: width of all heads together.
    """

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: PreTrainedConfig, num_heads: int, inner_size: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = inner_size // num_heads
        self.scaling = self.head_dim**-0.5

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[SequenceGroup]
    ) -> torch.Tensor:
        """Full attention within each sequence.

        Args:
            query: (sum of batch_size * query_length, inner_size), the groups end to end.
            key: (sum of batch_size * key_length, inner_size).
            value: same shape as ``key``.
            groups: the sequences in the rows, in order.

        Returns:
            Same shape as ``query``.
        """
        implementation = self.config._attn_implementation
        if "flash" in implementation and query.dtype == torch.float32:
            # Flash kernels do not take float32, the precision of segmenters whatever that of the language model.
            implementation = "sdpa"
        interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        query_rows = [group.batch_size * group.query_length for group in groups]
        key_rows = [group.batch_size * group.key_length for group in groups]
        results = []
        for group, q, k, v in zip(
            groups, query.split(query_rows), key.split(key_rows), value.split(key_rows), strict=True
        ):
            if group.batch_size == 0:
                # Not every kernel takes an empty batch. This too depends on all three, so each gets a gradient.
                results.append(q + k.sum() + v.sum())
                continue
            heads = (
                rows.view(group.batch_size, -1, self.num_heads, self.head_dim).transpose(1, 2)
                for rows in (q, k, v)
            )
            result, _ = interface(self, *heads, None, dropout=0.0, scaling=self.scaling, is_causal=False)
            results.append(result.reshape(len(q), -1))
        return torch.cat(results)
