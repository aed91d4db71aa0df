"""CogVLM's decoder layer: causal attention over all tokens, linear parts split into vision and language experts.

Inside the decoder the hidden states are an (N, C) matrix of real tokens in the order of a
:class:`~vividmed.models.experts.TokenRouting`. Everything else that a layer needs is the same in all layers and
travels as one :class:`~vividmed.models.context.DecoderContext`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vividmed.models.attention import eager_attention_forward
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedTextConfig
from vividmed.models.context import DecoderContext
from vividmed.models.experts import ExpertMLP
from vividmed.models.layer_stack import CheckpointedLayer


class VividMedRMSNorm(nn.Module):
    """Root mean square norm, in float32 including the weight (Llama casts back before the weight)."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(hidden_states.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class VividMedRotaryEmbedding(nn.Module):
    """Rotary angles of given positions, in float32; positions may repeat."""

    def __init__(self, config: VividMedTextConfig):
        super().__init__()
        self.config = config
        self.head_dim = int(config.head_dim or 0)  # the configuration fills it in
        self.rope_parameters = dict(config.rope_parameters or {})
        self.low_precision = config.rope_low_precision

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Round positions from now on if the tensors of a converted adapter ask for it."""
        asked = state_dict.pop(f"{prefix}low_precision", None)
        if asked is not None and bool(asked.any()):
            self.low_precision = self.config.rope_low_precision = True
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def forward(self, position_ids: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) positions to cosine and signed sine, see :func:`rotate`, each (B, 1, L, head_dim) in ``dtype``."""
        inverse_frequencies, scaling = self._frequencies(position_ids)
        working_dtype = dtype if self.low_precision else torch.float32
        angles = position_ids[:, None, :, None].to(working_dtype) * inverse_frequencies.to(working_dtype)
        cosine, sine = (angles.cos() * scaling).to(dtype), (angles.sin() * scaling).to(dtype)
        return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)

    def _frequencies(self, position_ids: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Radians per position, (head_dim / 2,), and the factor of cosine and sine."""
        device = position_ids.device
        rope_type = self.rope_parameters["rope_type"]
        if rope_type == "default":
            exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
            # Not theta ** -x, whose last bit differs: over many layers, other logits than the language model's.
            return 1.0 / (self.rope_parameters["rope_theta"] ** exponents), 1.0
        length = None
        if rope_type in ("dynamic", "longrope"):
            # These scale only sequences that are longer than those of the pre-training.
            length = int(position_ids.max()) + 1 if position_ids.numel() else 1
        return ROPE_INIT_FUNCTIONS[rope_type](self.config, device, seq_len=length)


def rotate(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotate pairs (i, i + head_dim / 2) of (B, heads, L, head_dim).

    Args:
        states: queries or keys.
        cosine: cosine of the angle of each element.
        sine: its sine, negative in the first half.
    """
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([second, first], dim=-1) * sine


class VividMedAttention(nn.Module):
    """Causal attention with expert projections; the fused projection contains query, key and value in this order."""

    is_causal = True

    def __init__(self, config: VividMedConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        text = config.text_config
        size, self.head_dim = text.hidden_size, text.head_dim
        self.heads = (text.num_attention_heads, text.num_key_value_heads, text.num_key_value_heads)
        self.num_key_value_groups = text.num_attention_heads // text.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.window = text.attention_window if layer_idx >= text.attention_window_first_layer else None
        inner, fused = self.heads[0] * self.head_dim, sum(self.heads) * self.head_dim
        bias, output_bias = text.attention_bias, text.attention_output_bias
        self.vision_expert_query_key_value = nn.Linear(size, fused, bias=bias)
        self.vision_expert_dense = nn.Linear(inner, size, bias=output_bias)
        self.language_expert_query_key_value = nn.Linear(size, fused, bias=bias)
        self.language_expert_dense = nn.Linear(inner, size, bias=output_bias)
        self.query_norm: VividMedRMSNorm | None = None
        self.key_norm: VividMedRMSNorm | None = None
        if text.query_key_norm:
            self.query_norm = VividMedRMSNorm(self.head_dim, eps=text.rms_norm_eps)
            self.key_norm = VividMedRMSNorm(self.head_dim, eps=text.rms_norm_eps)

    def forward(
        self, tokens: torch.Tensor, context: DecoderContext
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, C) to (N, C), and the attention weights where the implementation returns them."""
        routing = context.routing
        fused = routing.apply(
            tokens, self.vision_expert_query_key_value, self.language_expert_query_key_value
        )
        rows = routing.to_attention(fused).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        turning, value = rows.split((self.heads[0] + self.heads[1], self.heads[2]), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = turning.split(self.heads[:2], dim=1)
            turning = torch.cat([self.query_norm(query), self.key_norm(key)], dim=1)
        query, key = rotate(turning, *context.position_embeddings).split(self.heads[:2], dim=1)
        if context.cache is not None:
            key, value = context.cache.update(key, value, self.layer_idx)

        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        window = {} if self.window is None else {"sliding_window": self.window}
        attended, weights = attend(
            self,
            query,
            key,
            value,
            context.attention_mask if self.window is None else context.window_mask,
            dropout=0.0,
            scaling=self.scaling,
            **window,
            **context.options,
        )
        attended = routing.from_attention(attended.flatten(2))
        return routing.apply(attended, self.vision_expert_dense, self.language_expert_dense), weights


class VividMedDecoderLayer(CheckpointedLayer):
    """Pre-norm attention and MLP, each with its experts."""

    def __init__(self, config: VividMedConfig, layer_idx: int):
        super().__init__()
        text = config.text_config
        self.self_attn = VividMedAttention(config, layer_idx)
        self.mlp = ExpertMLP(
            text.hidden_size, text.intermediate_size, ACT2FN[text.hidden_act], bias=text.mlp_bias
        )
        self.input_layernorm = VividMedRMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.post_attention_layernorm = VividMedRMSNorm(text.hidden_size, eps=text.rms_norm_eps)

    def compute(self, tokens: torch.Tensor, context: DecoderContext) -> torch.Tensor:
        """(N, C) to (N, C)."""
        attended, _ = self.self_attn(self.input_layernorm(tokens), context)
        tokens = tokens + attended
        return tokens + self.mlp(self.post_attention_layernorm(tokens), context.routing)
