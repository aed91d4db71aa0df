"""Prompt encoder of the segmenters: prompts are vectors, positions are random Fourier features."""

from collections.abc import Sequence
from math import pi
from typing import Any

import torch
from torch import nn


class FourierPositionEncoding(nn.Module):
    """Positions in a unit cube as sines and cosines of random projections (Tancik et al., 2020).

    The projections are drawn once and never trained, but the decoder's weights are meaningless without them. So they
    are a buffer that is saved with the weights.
    """

    frequencies: torch.Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3, size // 2))

    def forward(self, grid: Sequence[int]) -> torch.Tensor:
        """Encode the centres of a grid's cells.

        Args:
            grid: (d, h, w).

        Returns:
            (size, d, h, w), in the dtype of ``frequencies``; computed in float32.
        """
        frequencies = self.frequencies.float()
        centres = [(torch.arange(n, device=frequencies.device) + 0.5) / n for n in grid]
        z, y, x = torch.meshgrid(*centres, indexing="ij")
        # Released weights expect (y, z, x): the order of SegVol's (h, w, d) names on a (d, h, w) grid.
        angles = 2 * pi * ((2 * torch.stack([y, z, x], dim=-1) - 1) @ frequencies)
        code = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return code.permute(3, 0, 1, 2).to(self.frequencies.dtype)


class PromptEncoder(nn.Module):
    """Further inputs of the mask decoder: the position code of the image and the "no mask given" embedding."""

    def __init__(self, size: int):
        super().__init__()
        self.position_encoding = FourierPositionEncoding(size)
        self.no_mask_embedding = nn.Embedding(1, size)

    def forward(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepare image embeddings for the decoder.

        Args:
            embeddings: (N, size, d, h, w).

        Returns:
            The embeddings with the dense prompt added, as ``embeddings``; and the position code (size, d, h, w).
        """
        dense = self.no_mask_embedding.weight.view(1, -1, 1, 1, 1)
        return embeddings + dense, self.position_encoding(embeddings.shape[2:])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # strict=False must not combine random frequencies with trained weights.
        given = any(name.startswith(f"{prefix}no_mask_embedding") for name in state_dict)
        if given and f"{prefix}position_encoding.frequencies" not in state_dict:
            error_messages = args[-1]
            error_messages.append(missing_frequencies(prefix))


def missing_frequencies(prefix: str = "") -> str:
    """The message for weights without the frequencies that they were trained with."""
    return (
        f"{prefix}position_encoding.frequencies is missing from trained segmenter weights, which are useless with "
        "other frequencies: take it from the checkpoint that training started from (SegVol's "
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix)"
    )
