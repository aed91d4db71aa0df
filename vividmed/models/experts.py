"""Two sets of weights, one for image tokens and one for text (CogVLM's visual experts).

Each token uses the same expert in every layer, so the routing is worked out once per forward. The decoder then keeps
its hidden states as one matrix of real tokens, vision tokens first: each expert is a dense matrix product on a slice,
and padding costs nothing. Only attention needs rows again (:meth:`TokenRouting.to_attention`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn


def vision_expert_mask(token_type_ids: torch.Tensor) -> torch.Tensor:
    """Mark the positions that use the vision expert: the tokens of an image except its last (the published rule).

    Args:
        token_type_ids: (B, L), 0 for text and padding, k for the k-th image of the sample.

    Returns:
        (B, L) bool.
    """
    mask = torch.zeros_like(token_type_ids, dtype=torch.bool)
    current, following = token_type_ids[:, :-1], token_type_ids[:, 1:]
    mask[:, :-1] = (current > 0) & (current == following)
    return mask


@dataclass(frozen=True)
class TokenRouting:
    """Where the tokens of a (B, L) batch stand in the (N, C) matrix that the decoder works on.

    ``order`` (N,) contains the flat place b * L + l of every real token, vision tokens first; None stands for all
    places in their own order, all of them text. ``attention_order`` is the same for the rows that
    attention sees, which differ from the batch's when samples are laid end to end (``attention_shape`` (1, N)).
    """

    batch_shape: tuple[int, int]
    attention_shape: tuple[int, int]
    order: torch.Tensor | None = None
    attention_order: torch.Tensor | None = None
    num_vision: int = 0

    @classmethod
    def text(cls, batch_shape: tuple[int, int]) -> "TokenRouting":
        """Every place is a text token: decoding, or a batch without images and padding."""
        return cls(batch_shape, batch_shape)

    @classmethod
    def build(
        cls,
        token_type_ids: torch.Tensor | None,
        padding_mask: torch.Tensor | None,
        shape: tuple[int, int],
        flat: bool,
    ) -> "TokenRouting":
        """Work out the order of the tokens.

        Args:
            token_type_ids: (B, L) or None for text only.
            padding_mask: (B, L), nonzero at real tokens, or None when all are real.
            shape: (B, L).
            flat: whether attention takes the real tokens of all samples end to end.
        """
        if token_type_ids is None and padding_mask is None and not flat:
            return cls.text(shape)
        device = (token_type_ids if token_type_ids is not None else padding_mask).device  # type: ignore[union-attr]
        real = (
            torch.ones(shape, dtype=torch.bool, device=device)
            if padding_mask is None
            else padding_mask.bool()
        )
        vision = (
            torch.zeros_like(real) if token_type_ids is None else vision_expert_mask(token_type_ids) & real
        )
        vision_places = vision.flatten().nonzero().squeeze(1)
        order = torch.cat([vision_places, (real & ~vision).flatten().nonzero().squeeze(1)])
        if not flat:
            return cls(shape, shape, order, order, len(vision_places))
        rank = real.flatten().cumsum(0) - 1
        return cls(shape, (1, len(order)), order, rank[order], len(vision_places))

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "TokenRouting":
        """The same routing with its indices on another device."""

        def move(order: torch.Tensor | None) -> torch.Tensor | None:
            return None if order is None else order.to(device, non_blocking=non_blocking)

        return replace(self, order=move(self.order), attention_order=move(self.attention_order))

    def to_tokens(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, ...) of the batch to (N, ...)."""
        return _gather(rows, self.order)

    def to_batch(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) to (B, L, ...) of the batch, zero at padding."""
        return _scatter(tokens, self.order, self.batch_shape)

    def to_attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) to the rows that attention sees, zero at padding."""
        return _scatter(tokens, self.attention_order, self.attention_shape)

    def from_attention(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows that attention sees to (N, ...)."""
        return _gather(rows, self.attention_order)

    def apply(
        self,
        tokens: torch.Tensor,
        vision: Callable[[torch.Tensor], torch.Tensor],
        language: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Send each token of (N, C) through its expert.

        When gradients are wanted, an expert without tokens runs on an empty slice, so that its parameters get a zero
        gradient in every process of a distributed run.
        """
        if not self.num_vision and not torch.is_grad_enabled():
            return language(tokens)
        return torch.cat([vision(tokens[: self.num_vision]), language(tokens[self.num_vision :])])


def _gather(rows: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    flat = rows.flatten(0, 1)
    return flat if order is None else flat.index_select(0, order)


def _scatter(tokens: torch.Tensor, order: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
    if order is None:
        return tokens.unflatten(0, shape)
    places = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:])
    return places.index_copy(0, order, tokens).unflatten(0, shape)


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: nn.Module, *, bias: bool = False
    ):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.activation = activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class ExpertMLP(nn.Module):
    """A gated MLP for image tokens and one for text."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: nn.Module, *, bias: bool = False
    ):
        super().__init__()
        self.language_mlp = GatedMLP(hidden_size, intermediate_size, activation, bias=bias)
        self.vision_mlp = GatedMLP(hidden_size, intermediate_size, activation, bias=bias)

    def forward(self, tokens: torch.Tensor, routing: TokenRouting) -> torch.Tensor:
        """(N, C) to (N, C)."""
        return routing.apply(tokens, self.vision_mlp, self.language_mlp)
