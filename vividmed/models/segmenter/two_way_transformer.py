"""Two-way transformer: prompt tokens read the image, the image reads the tokens (Segment Anything, appendix A)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from vividmed.models.attention import SequenceGroup
from vividmed.models.layer_stack import differentiable_input
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.image_attention import (
    ImageToTokens,
    SharedImages,
    TokensToImage,
    image_blocks,
    join,
)
from vividmed.models.segmenter.token_attention import TwoWayAttention


class TwoWayMLP(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.decoder_intermediate_size)
        self.fc2 = nn.Linear(config.decoder_intermediate_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(tokens)))


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
        self.token_to_image_attention = TokensToImage(config, size // 2)
        self.norm2 = nn.LayerNorm(size)
        self.mlp = TwoWayMLP(config)
        self.norm3 = nn.LayerNorm(size)
        self.image_to_token_attention = ImageToTokens(config, size // 2)
        self.norm4 = nn.LayerNorm(size)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
        groups: Sequence[SequenceGroup],
        shared: Sequence[SharedImages] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`TwoWayTransformer`; returns the new tokens, and for each prompt the rows of its image.

        Args:
            tokens: (P * T, E).
            image: (S, E), or (U, E) if ``shared`` is given.
            token_positions: same shape as ``tokens``.
            image_positions: the grids of the groups, end to end; those of one group share it.
            groups: the sequences.
            shared: for each group, its images and their prompts, in the first layer.
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

        blocks, placed_blocks = image_blocks(image, image_positions, groups, shared)
        placed = tokens + token_positions
        tokens = self.norm2(tokens + self.token_to_image_attention(placed, placed_blocks, blocks, groups))
        tokens = self.norm3(tokens + self.mlp(tokens))

        placed = tokens + token_positions
        updates = self.image_to_token_attention(placed_blocks, placed, tokens, groups)
        updated = join(
            [(block + update).flatten(0, 1) for block, update in zip(blocks, updates, strict=True)]
        )
        return tokens, self.norm4(updated)


class TwoWayTransformer(nn.Module):
    """Decoder body: every prompt has its own copy of its image, which attention in both directions refines.

    The prompts of an image differ from the end of the first layer on, so that layer projects each image only once.
    """

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayLayer(config, first=index == 0) for index in range(config.decoder_num_hidden_layers)
        )
        self.final_attention = TokensToImage(config, config.hidden_size // 2)
        self.final_norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        image_positions: torch.Tensor,
        groups: Sequence[SequenceGroup],
        images: Sequence[SharedImages],
        read: range,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the decoder on all prompts of a batch.

        Args:
            tokens: (P * T, E), T tokens for each of P prompts; their own position codes too.
            image: (U, E), the embeddings of the images of each group, end to end.
            image_positions: the position codes of the grid of each group, end to end.
            groups: prompts whose images have equally many embeddings, in the order of the rows.
            images: for each group, its images and their prompts.
            read: the R of T tokens of a prompt whose final states are needed.

        Returns:
            Tokens (P * R, E), and image (S, E), for each prompt the embeddings of its image as attention leaves them.
        """
        tokens = differentiable_input(tokens, self.layers)
        token_positions = tokens
        shared: Sequence[SharedImages] | None = images
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_positions, image_positions, groups, shared)
            shared = None
        blocks, placed_blocks = image_blocks(image, image_positions, groups, shared)
        # The other tokens have been read by the image for the last time.
        first, last, length = read.start, read.stop, groups[0].query_length
        chosen, placed = (
            rows.unflatten(0, (-1, length))[:, first:last].flatten(0, 1)
            for rows in (tokens, tokens + token_positions)
        )
        groups = [group._replace(query_length=len(read)) for group in groups]
        return self.final_norm(chosen + self.final_attention(placed, placed_blocks, blocks, groups)), image
