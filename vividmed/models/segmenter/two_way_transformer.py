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
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        groups: Sequence[SequenceGroup],
        *,
        query_rows: torch.Tensor | None = None,
        key_rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from queries to keys.

        Args:
            query: rows of queries.
            key: rows of keys.
            value: rows of values.
            groups: the sequences in the rows.
            query_rows: for each row that ``groups`` means, the row of ``query``; None if they are the same. Rows that
                several sequences share are projected once.
            key_rows: the same for ``key`` and ``value``.
        """
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if query_rows is not None:
            q = q.index_select(0, query_rows)
        if key_rows is not None:
            k, v = k.index_select(0, key_rows), v.index_select(0, key_rows)
        return self.out_proj(self.attend(q, k, v, groups))


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
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`TwoWayTransformer`; returns the new tokens, and for each prompt the rows of its image.

        Args:
            tokens: (P * T, E).
            image: (S, E), or (U, E) if ``rows`` is given.
            token_positions: same shape as ``tokens``.
            image_positions: same shape as ``image``.
            groups: the sequences.
            rows: (S,) the row of ``image`` for each row of each prompt's image, in the first layer.
        """
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
        tokens = self.norm2(
            tokens + self.token_to_image_attention(placed, placed_image, image, groups, key_rows=rows)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))

        placed = tokens + token_positions
        update = self.image_to_token_attention(
            placed_image, placed, tokens, _reverse(groups), query_rows=rows
        )
        image = image if rows is None else image.index_select(0, rows)
        return tokens, self.norm4(image + update)


class TwoWayTransformer(nn.Module):
    """Decoder body: every prompt has its own copy of its image, which attention in both directions refines.

    The prompts of an image differ from the end of the first layer on, so that layer projects each image only once.
    """

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
        images: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the decoder on all prompts of a batch.

        Args:
            tokens: (P * T, E), T tokens for each of P prompts; their own position codes too.
            image: (U, E), the embeddings of the images of each group, end to end.
            image_positions: (U, E).
            groups: prompts whose images have equally many embeddings, in the order of the rows.
            images: for each group (P of the group,) int64, the image of each prompt.

        Returns:
            Tokens (P * T, E), and image (S, E), for each prompt the embeddings of its image as attention leaves them.
        """
        tokens = differentiable_input(tokens, self.layers)
        token_positions = tokens
        rows: torch.Tensor | None = _rows_of_prompts(groups, images, image.device)
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_positions, image_positions, groups, rows)
            if rows is not None:
                image_positions, rows = image_positions.index_select(0, rows), None
        update = self.final_attention(tokens + token_positions, image + image_positions, image, groups)
        return self.final_norm(tokens + update), image


def _rows_of_prompts(
    groups: Sequence[SequenceGroup], images: Sequence[torch.Tensor], device: torch.device
) -> torch.Tensor:
    """(S,) int64: for each prompt in turn, the rows of its image among those of all images."""
    rows, start = [], 0
    for group, of_prompts in zip(groups, images, strict=True):
        within = torch.arange(group.key_length, device=device)
        first = start + of_prompts * group.key_length
        rows.append((first[:, None] + within).flatten())
        start += (int(of_prompts.max()) + 1) * group.key_length if len(of_prompts) else 0
    return torch.cat(rows)
