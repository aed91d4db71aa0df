"""Image encoder of the segmenters: a plain vision transformer on 3D patches (SegVol's, made ragged)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from vividmed.models.attention import RaggedAttention, SequenceGroup
from vividmed.models.depth import DepthAdaptiveConv3d, resample
from vividmed.models.layer_stack import differentiable_input
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig


@dataclass(frozen=True)
class ImageGroup:
    """Images of one shape and one patch size, which share a batch.

    Attributes:
        indices: places of the images in the caller's list.
        images: (len(indices), C, D, H, W), intensities in [0, 1]; C is 1 where all channels are the same.
        patch_size: (z, y, x).
    """

    indices: list[int]
    images: torch.Tensor
    patch_size: Sequence[int]


def group_images(
    images: Mapping[int, torch.Tensor], patch_sizes: Sequence[Sequence[int]]
) -> list[ImageGroup]:
    """Group images that can be stacked, in order of first appearance.

    Of a grey image whose channels share their memory, one channel is kept.

    Args:
        images: (C, D, H, W) by index.
        patch_sizes: (z, y, x) at each index.
    """
    members: dict[tuple, list[int]] = {}
    images = {index: image[:1] if image.stride(0) == 0 else image for index, image in images.items()}
    for index, image in images.items():
        members.setdefault((tuple(image.shape), tuple(patch_sizes[index])), []).append(index)
    return [
        ImageGroup(indices, torch.stack([images[index] for index in indices]), patch_size)
        for (_, patch_size), indices in members.items()
    ]


class PositionEmbedding(nn.Module):
    """A learned grid of position embeddings (1, C, d, h, w), resampled to the grid of the image."""

    def __init__(self, size: int, grid: Sequence[int]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size, *grid))

    def forward(self, grid: Sequence[int]) -> torch.Tensor:
        """(1, C, d, h, w) for ``grid`` (d, h, w)."""
        return resample(self.weight, grid)


class SegmenterPatchEmbedding(nn.Module):
    """Patches of the image's own thickness, plus their positions."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.projection = DepthAdaptiveConv3d(config.num_channels, config.hidden_size, config.patch_size)
        self.position_embedding = PositionEmbedding(config.hidden_size, config.position_grid)

    def forward(self, images: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
        """(N, C, D, H, W) to (N, hidden_size, d, h, w)."""
        patches = self.projection(images, patch_size)
        return patches + self.position_embedding(patches.shape[2:])


class SegmenterSelfAttention(RaggedAttention):
    """Self attention within each image; the fused projection contains query, key and value in this order."""

    def __init__(self, config: SegmenterConfig):
        super().__init__(config, config.num_attention_heads, config.hidden_size)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor, groups: Sequence[SequenceGroup]) -> torch.Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        return self.out_proj(self.attend(query, key, value, groups))


def gelu(states: torch.Tensor) -> torch.Tensor:
    """Exact GELU, in place unless a gradient needs its input: writing new memory would take as long as the function."""
    return F.gelu(states) if torch.is_grad_enabled() else torch.ops.aten.gelu_(states)


class SegmenterEncoderMLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(gelu(self.fc1(tokens)))


class SegmenterEncoderLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer on the tokens of all images, (T, hidden_size) to the same."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.attention = SegmenterSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = SegmenterEncoderMLP(config)

    def forward(self, tokens: torch.Tensor, groups: Sequence[SequenceGroup]) -> torch.Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), groups)
        return tokens + self.mlp(self.norm2(tokens))


class SegmenterImageEncoder(nn.Module):
    """3D images to grids of embeddings."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.patch_embedding = SegmenterPatchEmbedding(config)
        self.layers = nn.ModuleList(SegmenterEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, groups: Sequence[ImageGroup]) -> list[torch.Tensor]:
        """Encode groups of images in one pass.

        Args:
            groups: at least one; a group may be empty.

        Returns:
            For each group (N, hidden_size, d, h, w), with d = D / patch z and so on.
        """
        patches = [self.patch_embedding(group.images, group.patch_size) for group in groups]
        grids = [patch.shape[2:] for patch in patches]
        sequences = [
            SequenceGroup(batch_size=len(patch), query_length=prod(grid), key_length=prod(grid))
            for patch, grid in zip(patches, grids, strict=True)
        ]
        tokens = torch.cat([patch.flatten(2).mT.flatten(0, 1) for patch in patches])
        tokens = differentiable_input(tokens, self.layers)
        for layer in self.layers:
            tokens = layer(tokens, sequences)
        rows = self.norm(tokens).split([sequence.batch_size * sequence.key_length for sequence in sequences])
        return [
            flat.unflatten(0, (sequence.batch_size, sequence.key_length)).mT.unflatten(2, grid)
            for flat, sequence, grid in zip(rows, sequences, grids, strict=True)
        ]
