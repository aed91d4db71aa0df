"""Attention between a few tokens and the many rows of an image, without projecting the image.

A prompt has about six tokens, its image hundreds or thousands of rows. The score of token t and row x in head h is
``(W_q t) . (W_k x)``, which equals ``(W_k^T W_q t) . x``: the projection of the rows moves to the tokens. In the same
way, values are weighted first and projected afterwards. The image side then costs one product with ``heads * tokens``
vectors in place of one with ``inner_size`` columns for each of two projections, and nothing of that size is kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from vividmed.models.attention import SequenceGroup
from vividmed.models.segmenter.token_attention import TwoWayAttention

Blocks = list[torch.Tensor]
"""Per group (P, m, E), the image of each prompt; or (1, m, E) where all prompts of the group share one image."""


class SharedImages(NamedTuple):
    """Images of a group before its prompts have copies of their own.

    Attributes:
        num_images: number of images.
        of_prompts: (P,) int64, the image of each prompt.
    """

    num_images: int
    of_prompts: torch.Tensor


def image_blocks(
    image: torch.Tensor,
    positions: torch.Tensor,
    groups: Sequence[SequenceGroup],
    shared: Sequence[SharedImages] | None,
) -> tuple[Blocks, Blocks]:
    """Divide the rows of images into blocks, without and with position codes.

    Args:
        image: (S, E), the image of each prompt; or (U, E), all images, if ``shared`` is given.
        positions: the grids of the groups, end to end.
        groups: prompts whose images have equally many rows.
        shared: for each group, its images and their prompts.
    """
    blocks: Blocks = []
    counts = [each.num_images for each in shared] if shared else [group.batch_size for group in groups]
    rows = image.split([count * group.key_length for count, group in zip(counts, groups, strict=True)])
    for number, (group, count, own) in enumerate(zip(groups, counts, rows, strict=True)):
        block = own.unflatten(0, (count, group.key_length))
        if shared and count != 1:
            block = block.index_select(0, shared[number].of_prompts)
        blocks.append(block)
    grids = positions.split([group.key_length for group in groups])
    return blocks, [block + grid for block, grid in zip(blocks, grids, strict=True)]


def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of all groups, end to end."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class TokensToImage(TwoWayAttention):
    """Tokens read their image."""

    def forward(  # type: ignore[override]
        self, query: torch.Tensor, keys: Blocks, values: Blocks, groups: Sequence[SequenceGroup]
    ) -> torch.Tensor:
        """Attend from tokens to images.

        Args:
            query: (P * T, E), the tokens of all prompts.
            keys: blocks of the images with positions.
            values: blocks of the images.
            groups: the sequences.

        Returns:
            (P * T, E).
        """
        if not _are_plain(self.k_proj, self.v_proj):
            return super().forward(query, _rows(keys, groups), _rows(values, groups), groups)
        q = _heads(self.q_proj(query), self.num_heads) * self.scaling
        wanted, offset = _moved(q, self.k_proj)
        contexts = []
        parts = _split(groups, wanted, offset)
        for w, o, key, value in zip(*parts, keys, values, strict=True):
            weights = _product(w, key.mT).add(o).softmax(dim=-1, dtype=torch.float32).to(w.dtype)
            contexts.append(_product(weights, value).reshape(-1, self.num_heads, value.shape[-1]))
        weight = _heads(self.v_proj.weight.T, self.num_heads)
        read = torch.einsum("the,ehd->thd", join(contexts), weight).flatten(1)
        return self.out_proj(read + self.v_proj.bias)


class ImageToTokens(TwoWayAttention):
    """Every row of an image reads the tokens of its prompt."""

    def forward(  # type: ignore[override]
        self, queries: Blocks, key: torch.Tensor, value: torch.Tensor, groups: Sequence[SequenceGroup]
    ) -> Blocks:
        """Attend from images to tokens.

        Args:
            queries: blocks of the images with positions.
            key: (P * T, E), the tokens with positions.
            value: (P * T, E), the tokens.
            groups: the sequences.

        Returns:
            For each group (P, m, E).
        """
        if not _are_plain(self.q_proj, self.out_proj):
            turned = [
                SequenceGroup(group.batch_size, group.key_length, group.query_length) for group in groups
            ]
            rows = super().forward(_rows(queries, groups), key, value, turned)
            parts = rows.split([group.batch_size * group.query_length for group in turned])
            return [
                part.unflatten(0, (group.batch_size, group.query_length))
                for part, group in zip(parts, turned, strict=True)
            ]
        k = _heads(self.k_proj(key), self.num_heads) * self.scaling
        wanted, offset = _moved(k, self.q_proj)
        v = _heads(self.v_proj(value), self.num_heads)
        # The weights of each head sum to 1, so each value carries the head's share of the bias.
        share = self.out_proj.bias / self.num_heads
        written = torch.einsum("thd,ehd->the", v, _heads(self.out_proj.weight, self.num_heads)) + share
        results = []
        for group, w, o, out, query in zip(
            groups, *_split(groups, wanted, offset, written), queries, strict=True
        ):
            scores = _product(w, query.mT).add(o).unflatten(1, (group.query_length, self.num_heads))
            weights = scores.softmax(dim=1, dtype=torch.float32).to(w.dtype).flatten(1, 2)
            results.append(weights.mT @ out)
        return results


def _moved(heads: torch.Tensor, projection: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (T, heads, E) whose product with a row is that of ``heads`` with its projection; offsets (T, heads, 1)."""
    weight = _heads(projection.weight.T, heads.shape[1])
    bias = _heads(projection.bias, heads.shape[1])
    return torch.einsum("thd,ehd->the", heads, weight), (heads * bias).sum(-1, keepdim=True)


def _heads(values: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(..., inner_size) to (..., heads, head_dim)."""
    return values.unflatten(-1, (num_heads, -1))


def _split(groups: Sequence[SequenceGroup], *values: torch.Tensor) -> list[list[torch.Tensor]]:
    """(P * T, heads, n) of all groups to (P, T * heads, n) of each."""
    lengths = [group.batch_size * group.query_length for group in groups]
    return [
        [
            part.reshape(group.batch_size, group.query_length * part.shape[1], part.shape[2])
            for group, part in zip(groups, each.split(lengths), strict=True)
        ]
        for each in values
    ]


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Batched product; a block that all prompts share is multiplied once with all their rows."""
    return left @ right[0] if len(right) == 1 else left @ right


def _rows(blocks: Blocks, groups: Sequence[SequenceGroup]) -> torch.Tensor:
    """Rows of the image of each prompt, for all groups."""
    return join(
        [
            block.expand(group.batch_size, -1, -1).flatten(0, 1)
            for block, group in zip(blocks, groups, strict=True)
        ]
    )


def _are_plain(*projections: nn.Module) -> bool:
    """Whether projections are just their weights, not wrapped by an adapter or kept on another device."""
    return all(type(each) is nn.Linear and not each.weight.is_meta for each in projections)
