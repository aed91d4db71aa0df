"""EVA2-CLIP made three-dimensional: images of any size and depth to tokens of the decoder's width.

Images come as a ragged list and go through the tower together: linear parts run on all tokens at once, attention
stays within each image, nothing is padded (VividMed, section 3.2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vividmed.errors import VividMedError
from vividmed.models.attention import eager_attention_forward
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedVisionConfig
from vividmed.models.depth import DepthAdaptiveConv3d, resample
from vividmed.models.layer_stack import CheckpointedLayer, differentiable_input, stream_dtype
from vividmed.models.layout import sequence_lengths
from vividmed.triples import Triple


class ParameterModule(nn.Module):
    """A bare parameter under the name ``weight``, so that adapters can save it like any module."""

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class VividMedPatchEmbedding(nn.Module):
    """Patches plus resampled position embeddings, with a class token in front of each image."""

    def __init__(self, config: VividMedVisionConfig):
        super().__init__()
        self.proj = DepthAdaptiveConv3d(config.num_channels, config.hidden_size, config.patch_size)
        self.cls_embedding = ParameterModule(1, config.hidden_size)
        self.cls_pos_embed = ParameterModule(1, config.hidden_size)
        self.position_embedding = ParameterModule(1, config.hidden_size, *config.position_grid)

    def forward(
        self, images: Sequence[torch.Tensor], patch_sizes: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, list[Triple]]:
        """Embed all images.

        Args:
            images: each (3, D, H, W).
            patch_sizes: (z, y, x) of each image.

        Returns:
            (T, C), the images' tokens end to end, each image's class token first and its grid in z, y, x order with
            x fastest; and the grid (d, h, w) of each image.
        """
        if not images:
            return self._no_tokens(), []
        first = self.cls_embedding.weight + self.cls_pos_embed.weight
        tokens, grids = [], []
        # Neighbouring images of one shape are one batch: for small images, calls cost more than arithmetic.
        shapes = [(image.shape, tuple(size)) for image, size in zip(images, patch_sizes, strict=True)]
        for (_, patch_size), run in groupby(range(len(images)), shapes.__getitem__):
            stack = torch.stack([images[index] for index in run]).to(self.proj.weight.dtype)
            patches = self.proj(stack, patch_size)
            grid = tuple(patches.shape[2:])
            patches = (patches + resample(self.position_embedding.weight, grid)).flatten(2).mT
            tokens.append(torch.cat([first.expand(len(stack), 1, -1), patches], dim=1).flatten(0, 1))
            grids += [grid] * len(stack)
        return torch.cat(tokens), grids

    def _no_tokens(self) -> torch.Tensor:
        """(0, C) that depends on every parameter: a batch without images still gives each a (zero) gradient."""
        no_images = self.proj.weight.new_zeros(0, *self.proj.weight.shape[1:])
        patches = (
            self.proj(no_images, self.proj.kernel_size) + self.position_embedding.weight[..., :1, :1, :1]
        )
        return torch.cat([patches.flatten(1), (self.cls_embedding.weight + self.cls_pos_embed.weight)[:0]])


@dataclass(frozen=True)
class ImageLengths:
    """Numbers of tokens of the images that lie end to end; an object, so that compiled layers are not tied to its values."""

    counts: list[int]


class VividMedVisionAttention(nn.Module):
    """Attention within each image; the fused projection contains query, key and value in this order."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: VividMedConfig):
        super().__init__()
        self.config = config
        size = config.vision_config.hidden_size
        self.head_dim = size // config.vision_config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.query_key_value = nn.Linear(size, 3 * size)
        self.dense = nn.Linear(size, size)

    def forward(self, tokens: torch.Tensor, lengths: ImageLengths) -> torch.Tensor:
        """(T, C) to (T, C)."""
        heads = self.query_key_value(tokens).unflatten(1, (3, -1, self.head_dim)).permute(1, 2, 0, 3)[:, None]
        return self.dense(self.attend(heads, lengths)[0].flatten(1))

    def attend(self, heads: torch.Tensor, lengths: ImageLengths) -> torch.Tensor:
        """Full attention within each image, (3, 1, heads, T, head_dim) to (1, T, heads, head_dim)."""
        implementation = self.config._attn_implementation
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        options: dict[str, Any] = {"dropout": 0.0, "scaling": self.scaling, "is_causal": False}
        if not lengths.counts:
            return heads.sum(0).transpose(1, 2)
        if "flash" in implementation:
            options |= sequence_lengths(lengths.counts, heads.device)
            return attend(self, *heads, None, **options)[0]
        # Neighbouring images of one length are one batch.
        runs = [(length, len(list(run))) for length, run in groupby(lengths.counts)]
        parts = heads.split([length * count for length, count in runs], dim=3)
        batches = [
            part.unflatten(3, (count, length))[:, 0].transpose(1, 2)
            for part, (length, count) in zip(parts, runs, strict=True)
        ]
        return torch.cat([attend(self, *batch, None, **options)[0].flatten(0, 1) for batch in batches])[None]


class VividMedVisionMLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, config: VividMedVisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class VividMedVisionLayer(CheckpointedLayer):
    """Attention and MLP, each normalised after it runs, before it is added (EVA2's order).

    The names follow the released weights: ``input_layernorm`` comes after attention.
    """

    def __init__(self, config: VividMedConfig):
        super().__init__()
        vision = config.vision_config
        self.attention = VividMedVisionAttention(config)
        self.input_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.mlp = VividMedVisionMLP(vision)
        self.post_attention_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)

    def compute(self, tokens: torch.Tensor, lengths: ImageLengths) -> torch.Tensor:
        tokens = self._add(tokens, self.input_layernorm(self.attention(tokens, lengths)))
        return self._add(tokens, self.post_attention_layernorm(self.mlp(tokens)))

    def _add(self, tokens: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        return tokens + change.to(stream_dtype(self.mlp.fc1.weight, change))


class VividMedVisionTransformer(nn.Module):
    """The stack of layers, without a final norm."""

    def __init__(self, config: VividMedConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            VividMedVisionLayer(config) for _ in range(config.vision_config.num_hidden_layers)
        )

    def forward(self, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """(T, C) to (T, C); ``lengths`` are the numbers of tokens of the images."""
        tokens = differentiable_input(tokens, self.layers)
        first: Any = self.layers[0]
        tokens = tokens.to(stream_dtype(first.mlp.fc1.weight, tokens))
        images = ImageLengths(lengths)
        for layer in self.layers:
            tokens = layer(tokens, images)
        return tokens


class VividMedProjection(nn.Module):
    """From the tower's width to the decoder's: linear, norm, GELU, then a gated MLP as wide as the decoder's."""

    def __init__(self, config: VividMedConfig):
        super().__init__()
        size, inner = config.text_config.hidden_size, config.text_config.intermediate_size
        self.linear_proj = nn.Linear(config.vision_config.hidden_size, size, bias=False)
        self.norm1 = nn.LayerNorm(size)
        self.dense_h_to_4h = nn.Linear(size, inner, bias=False)
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = F.gelu(self.norm1(self.linear_proj(tokens)))
        return self.dense_4h_to_h(F.silu(self.gate_proj(tokens)) * self.dense_h_to_4h(tokens))


def check_images(
    images: Sequence[torch.Tensor],
    patch_sizes: torch.Tensor | Sequence[Sequence[int]],
    pool_sizes: torch.Tensor | Sequence[Sequence[int]],
    num_channels: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """Check that images and sizes fit together.

    Args:
        images: each (num_channels, D, H, W).
        patch_sizes: (images, 3), z, y, x.
        pool_sizes: (images, 3), z, y, x.
        num_channels: channels that the tower takes.

    Returns:
        Patch sizes and pool sizes as numbers.

    Raises:
        VividMedError: a tensor has the wrong shape, or an image is smaller than one pooled patch.
    """
    sizes = []
    for name, given in (("patch_sizes", patch_sizes), ("pool_sizes", pool_sizes)):
        rows = torch.as_tensor(given)
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise VividMedError(
                f"{name} have shape {tuple(rows.shape)}: the model takes (images, 3), z, y, x"
            )
        sizes.append(rows.tolist())
    if not len(images) == len(sizes[0]) == len(sizes[1]):
        raise VividMedError(
            f"there are {len(images)} images but {len(sizes[0])} patch_sizes and {len(sizes[1])} pool_sizes: "
            "pass one of each per image"
        )
    for index, (image, patch, pool) in enumerate(zip(images, *sizes, strict=True)):
        if image.ndim != 4 or image.shape[0] != num_channels:
            raise VividMedError(
                f"image {index} has shape {tuple(image.shape)}: the model takes ({num_channels}, D, H, W)"
            )
        stride = [p * s for p, s in zip(patch, pool, strict=True)]
        if min(pool) < 1 or any(extent < step for extent, step in zip(image.shape[1:], stride, strict=True)):
            raise VividMedError(
                f"image {index} of size {tuple(image.shape[1:])} has no token with patch size {tuple(patch)} and "
                f"pool size {tuple(pool)}: use the sizes that the processor returned with it"
            )
    return sizes[0], sizes[1]


class VividMedVisionTower(nn.Module):
    """Images to visual tokens of the decoder's width, each image framed by a begin and an end token."""

    def __init__(self, config: VividMedConfig):
        super().__init__()
        size = config.text_config.hidden_size
        self.patch_embedding = VividMedPatchEmbedding(config.vision_config)
        self.transformer = VividMedVisionTransformer(config)
        self.linear_proj = VividMedProjection(config)
        self.boi = nn.Parameter(torch.zeros(1, 1, size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, size))

    def forward(
        self,
        images: Sequence[torch.Tensor],
        patch_sizes: Sequence[Sequence[int]],
        pool_sizes: Sequence[Sequence[int]],
    ) -> list[torch.Tensor]:
        """Encode all images of a batch in one pass.

        Args:
            images: each (3, D, H, W), normalised; D, H, W multiples of its patch size.
            patch_sizes: (z, y, x) of each image.
            pool_sizes: (z, y, x) of each image, the max-pooling of its grid of tokens.

        Returns:
            One (n, hidden_size) for each image: begin token, pooled patches (x fastest), end token.
        """
        # Images of one shape are neighbours, so that they are one batch.
        order = sorted(
            range(len(images)),
            key=lambda index: (*images[index].shape, *patch_sizes[index], *pool_sizes[index]),
        )
        tokens, grids = self.patch_embedding(
            [images[index] for index in order], [patch_sizes[index] for index in order]
        )
        lengths = [1 + d * h * w for d, h, w in grids]
        tokens = self.transformer(tokens, lengths)
        pooled = _pool(tokens, grids, [pool_sizes[index] for index in order])
        patches = self.linear_proj(torch.cat(pooled) if pooled else tokens)
        boi, eoi = self.boi[0], self.eoi[0]
        if not pooled:
            return [torch.cat([boi[:0], patches, eoi[:0]])] if torch.is_grad_enabled() else []
        parts = patches.split([len(image) for image in pooled])
        by_image = dict(zip(order, parts, strict=True))
        return [torch.cat([boi, by_image[index], eoi]) for index in range(len(images))]


def _pool(
    tokens: torch.Tensor, grids: Sequence[Triple], pool_sizes: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Drop the class token of each image and max-pool the others on their grid without padding; (n, C) each."""
    runs = [
        (grid, kernel, len(list(run)))
        for (grid, kernel), run in groupby(
            zip(grids, (tuple(map(int, size)) for size in pool_sizes), strict=True)
        )
    ]
    lengths = [count * (1 + math.prod(grid)) for grid, _, count in runs]
    pooled: list[torch.Tensor] = []
    for part, (grid, kernel, count) in zip(tokens.split(lengths), runs, strict=True):
        patches = part.unflatten(0, (count, -1))[:, 1:]
        if kernel != (1, 1, 1):
            patches = F.max_pool3d(patches.mT.unflatten(2, grid), kernel).flatten(2).mT
        pooled += patches.unbind()
    return pooled
