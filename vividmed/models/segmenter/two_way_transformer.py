"""Two-way transformer: prompt tokens read the image, the image reads the tokens (Segment Anything, appendix A)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from vividmed.models.attention import RaggedAttention, SequenceGroup
from vividmed.models.checkpointing import differentiable_input
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
        return self.out_proj(self.attend(self.q_proj(query), self.k_proj(key), self.v_proj(value), groups))


class TwoWayMLP(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.decoder_intermediate_size)
        self.fc2 = nn.Linear(config.decoder_intermediate_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(tokens)))


def _reverse(groups: Sequence[SequenceGroup]) -> list[SequenceGroup]:
    return [SequenceGroup(group.batch_size, group.key_length, group.query_length) for group in groups]


class TwoWayLayer(GradientCheckpointingLayer):
    """Self attention of tokens, tokens to image, MLP, image to tokens.

    Args:
        config: sizes.
        first: in the first layer tokens equal their own position codes, so self attention replaces them instead of
            being added.
    """

    def __init__(self, config: SegmenterConfig, first: bool):
        super().__init__()
        size = config.hidden_size
        self.first = first
        self.self_attention = TwoWayAttention(config, size)
        self.norm1 = nn.LayerNorm(size)
        self.token_to_image_attention = TwoWayAttention(config, size // 2)
        self.norm2 = nn.LayerNorm(size)
        self.mlp = TwoWayMLP(config)
        self.norm3 = nn.LayerNorm(size)
        self.image_to_token_attention = TwoWayAttention(config, size // 2)
        self.norm4 = nn.LayerNorm(size)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
        groups: Sequence[SequenceGroup],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`TwoWayTransformer`; returns the new tokens and image rows."""
        token_groups = [
            SequenceGroup(group.batch_size, group.query_length, group.query_length) for group in groups
        ]
        if self.first:
            tokens = self.self_attention(tokens, tokens, tokens, token_groups)
        else:
            placed = tokens + token_positions
            tokens = tokens + self.self_attention(placed, placed, tokens, token_groups)
        tokens = self.norm1(tokens)

        placed_image = image + image_positions
        placed = tokens + token_positions
        tokens = self.norm2(tokens + self.token_to_image_attention(placed, placed_image, image, groups))
        tokens = self.norm3(tokens + self.mlp(tokens))

        placed = tokens + token_positions
        update = self.image_to_token_attention(placed_image, placed, tokens, _reverse(groups))
        return tokens, self.norm4(image + update)


class TwoWayTransformer(nn.Module):
    """Decoder body: every prompt has its own copy of its image, which attention in both directions refines."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayLayer(config, first=index == 0) for index in range(config.decoder_num_hidden_layers)
        )
        self.final_attention = TwoWayAttention(config, config.hidden_size // 2)
        self.final_norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        image_positions: torch.Tensor,
        groups: Sequence[SequenceGroup],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the decoder on all prompts of a batch.

        Args:
            tokens: (P * T, E), T tokens for each of P prompts; their own position codes too.
            image: (S, E), for each prompt the embeddings of its image, end to end.
            image_positions: (S, E).
            groups: prompts whose images have equally many embeddings, in the order of the rows.

        Returns:
            Tokens (P * T, E) and image (S, E).
        """
        tokens = differentiable_input(tokens, self.layers)
        token_positions = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_positions, image_positions, groups)
        update = self.final_attention(tokens + token_positions, image + image_positions, image, groups)
        return self.final_norm(tokens + update), image
