"""Mask decoder of the segmenters: prompts and image embeddings to token states and mask logits."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vividmed.models.attention import SequenceGroup
from vividmed.models.depth import DepthAdaptiveConvTranspose3d
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.image_attention import SharedImages
from vividmed.models.segmenter.image_encoder import gelu
from vividmed.models.segmenter.two_way_transformer import TwoWayTransformer
from vividmed.triples import Triple

FEATURES_AT_A_TIME = 1 << 21
"""Upscaled features, all channels counted, that are computed together where no gradient keeps them."""
ALL_TOKENS, TARGET_TOKEN, INSTANCE_TOKENS = slice(None), slice(1), slice(1, None)
"""Mask tokens: all, that of the whole target, those of its instances."""


class DecoderGroup(NamedTuple):
    """Prompts whose images share one shape.

    Attributes:
        prompts: (P, E).
        embeddings: (N, E, d, h, w), the embeddings of the images, dense prompt added.
        images: (P,) int64, the image of each prompt.
        positions: (E, d, h, w), the code of the grid.
        patch_depth: z of the images' patch size.
    """

    prompts: torch.Tensor
    embeddings: torch.Tensor
    images: torch.Tensor
    positions: torch.Tensor
    patch_depth: int


class DecodedGroup(NamedTuple):
    """Output of the decoder for a :class:`DecoderGroup`.

    Attributes:
        states: (P, M, E), the states of the mask tokens that were asked for.
        embeddings: (P, E, d, h, w), each prompt's image as attention has left it.
    """

    states: torch.Tensor
    embeddings: torch.Tensor


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *sizes: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            states = F.relu(layer(states))
        return self.layers[-1](states)


def depth_upscaling(patch_depth: int) -> int:
    """Ratio of the resolution of masks to that of patches in z: 1, 2 or 4, never finer than the image."""
    if patch_depth >= 4:
        return 4
    return 2 if patch_depth >= 2 else 1


def low_res_shape(image_shape: Sequence[int], patch_size: Sequence[int]) -> Triple:
    """(d', 4h, 4w), the grid on which masks are drawn, for an image (D, H, W) in patches (z, y, x)."""
    depth, height, width = (extent // patch for extent, patch in zip(image_shape, patch_size, strict=True))
    return depth * depth_upscaling(patch_size[0]), 4 * height, 4 * width


class MaskUpscaling(nn.Module):
    """Two transposed convolutions: four times finer in y and x, and in z as far as the patch is that thick."""

    def __init__(self, size: int):
        super().__init__()
        self.conv1 = DepthAdaptiveConvTranspose3d(size, size // 4)
        self.norm = nn.LayerNorm(size // 4)
        self.conv2 = DepthAdaptiveConvTranspose3d(size // 4, size // 8)

    def forward(self, embeddings: torch.Tensor, patch_depth: int) -> torch.Tensor:
        """Refine voxels to nested blocks.

        Args:
            embeddings: (P, E, d, h, w).
            patch_depth: z of the images' patch size.

        Returns:
            (P, d, h, w, a, 2, 2, b, 2, 2, E / 8): each voxel a block of blocks, see :func:`unnest`; a * b is
            :func:`depth_upscaling`.
        """
        factor = depth_upscaling(patch_depth)
        features = self.conv1(embeddings.movedim(1, -1), upsample_depth=factor >= 2)
        features = gelu(self.norm(features))
        return gelu(self.conv2(features, upsample_depth=factor == 4))


def unnest(blocks: torch.Tensor) -> torch.Tensor:
    """Arrange blocks of blocks (P, d, h, w, a, 2, 2, b, 2, 2, M) on one grid: (P, M, d', 4h, 4w)."""
    ordered = blocks.permute(0, 10, 1, 4, 7, 2, 5, 8, 3, 6, 9)
    return ordered.flatten(8, 10).flatten(5, 7).flatten(2, 4)


class MaskDecoder(nn.Module):
    """Attention between prompts and images, then masks as products of token states and upscaled features.

    One network turns the states of the tokens that are asked for into filters: of the first token in
    :class:`~vividmed.models.segmenter.modeling_segmenter.Segmenter`, of the instance queries, which share it, in
    :class:`~vividmed.models.segmenter.modeling_segmenter.InstanceSegmenter`. The prompt itself is a filter as well, common to all masks
    of the prompt (SegVol's text alignment).
    """

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        size = config.hidden_size
        self.transformer = TwoWayTransformer(config)
        # Nothing reads the state of this token, but the other tokens attend to it.
        self.iou_token = nn.Embedding(1, size)
        self.mask_tokens = nn.Embedding(1 + config.num_instance_queries, size)
        self.upscaling = MaskUpscaling(size)
        self.mask_head = MLP(size, size, size, size // 8)
        self.prompt_head = nn.Linear(size, size // 8)

    def forward(self, groups: Sequence[DecoderGroup], read: slice = ALL_TOKENS) -> list[DecodedGroup]:
        """Decode all prompts of a batch in one pass.

        Args:
            groups: at least one, which may have no prompts.
            read: the mask tokens whose states are returned.
        """
        prompts = torch.cat([group.prompts for group in groups])
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([learned.expand(len(prompts), -1, -1), prompts[:, None]], dim=1)
        sequences = [
            SequenceGroup(len(group.prompts), tokens.shape[1], prod(group.positions.shape[1:]))
            for group in groups
        ]
        image = torch.cat([group.embeddings.flatten(2).mT.flatten(0, 1) for group in groups])
        positions = torch.cat([group.positions.flatten(1).T for group in groups])

        shared = [SharedImages(len(group.embeddings), group.images) for group in groups]
        # The first token is that of the IoU, the last one the prompt.
        wanted = range(tokens.shape[1])[1:-1][read]
        states, image = self.transformer(tokens.flatten(0, 1), image, positions, sequences, shared, wanted)

        states = states.unflatten(0, (len(prompts), len(wanted)))
        rows = image.split([sequence.batch_size * sequence.key_length for sequence in sequences])
        return [
            DecodedGroup(
                states=group_states,
                embeddings=flat.unflatten(0, (sequence.batch_size, sequence.key_length)).mT.unflatten(
                    2, group.positions.shape[1:]
                ),
            )
            for group, sequence, group_states, flat in zip(
                groups, sequences, states.split([len(group.prompts) for group in groups]), rows, strict=True
            )
        ]

    def draw(
        self, states: torch.Tensor, prompts: torch.Tensor, embeddings: torch.Tensor, patch_depth: int
    ) -> torch.Tensor:
        """Draw the masks of some mask tokens.

        Args:
            states: (P, M, E), the tokens to draw.
            prompts: (P, E).
            embeddings: (P, E, d, h, w) as decoded.
            patch_depth: z of the images' patch size.

        Returns:
            Mask logits (P, M, d', 4h, 4w), see :func:`low_res_shape`.
        """
        filters = self.mask_head(states) + self.prompt_head(prompts)[:, None]
        step = max(1, len(filters))
        if not torch.is_grad_enabled():
            # Fewer prompts at a time stay in the cache of a processor, and need less memory.
            features = depth_upscaling(patch_depth) * 16 * filters.shape[-1] * prod(embeddings.shape[2:])
            step = max(1, FEATURES_AT_A_TIME // features)
        drawn = []
        for some, chosen in zip(embeddings.split(step), filters.split(step), strict=True):
            blocks = self.upscaling(some, patch_depth)
            drawn.append((blocks.flatten(1, -2) @ chosen.mT).unflatten(1, blocks.shape[1:-1]))
        return unnest(torch.cat(drawn))
