"""Attention of the two-way transformer with separate projections."""

from collections.abc import Sequence

import torch
from torch import nn

from vividmed.models.attention import RaggedAttention, SequenceGroup
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig


class TwoWayAttention(RaggedAttention):
    """Attention with separate projections, which may narrow the width inside."""

    def __init__(self, config: SegmenterConfig, inner_size: int):
        super().__init__(config, config.decoder_num_attention_heads, inner_size)
        self.q_proj = nn.Linear(config.hidden_size, inner_size)
        self.k_proj = nn.Linear(config.hidden_size, inner_size)
        self.v_proj = nn.Linear(config.hidden_size, inner_size)
        self.out_proj = nn.Linear(inner_size, config.hidden_size)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[SequenceGroup]
    ) -> torch.Tensor:
        """Attend from rows of queries to rows of keys and values; ``groups`` are the sequences in the rows."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        return self.out_proj(self.attend(q, k, v, groups))
