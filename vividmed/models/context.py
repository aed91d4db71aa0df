"""The batch as the decoder sees it: routing, positions, mask and cache, worked out once per forward."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import and_masks, create_causal_mask

from vividmed.errors import VividMedError
from vividmed.models.cache import as_cache_argument, growing
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.experts import TokenRouting
from vividmed.models.layout import (
    TokenInfo,
    count_positions,
    is_packed,
    lay_end_to_end,
    number_samples,
    same_sample,
    same_turn,
    within_window,
)


@dataclass(frozen=True)
class DecoderContext:
    """The batch as every decoder layer sees it, worked out once per forward.

    Attributes:
        routing: which expert each token uses, and where it stands in the rows that attention sees.
        position_embeddings: cosine and signed sine of the rotary angles, each (B, 1, L, head_dim).
        attention_mask: in the form that the attention implementation takes.
        window_mask: the same for layers in which a token sees only those within a window.
        cache: keys and values of the tokens before these, extended by each layer.
        options: further arguments of the attention implementation.
    """

    routing: TokenRouting
    position_embeddings: tuple[torch.Tensor, torch.Tensor]
    attention_mask: Any = None
    window_mask: Any = None
    cache: Cache | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "DecoderContext":
        """Move all but the cache, which places its layers itself; accelerate calls this between devices."""

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value

        cosine, sine = self.position_embeddings
        return replace(
            self,
            routing=self.routing.to(device, non_blocking=non_blocking),
            position_embeddings=(move(cosine), move(sine)),
            attention_mask=move(self.attention_mask),
            window_mask=move(self.window_mask),
            options={name: move(value) for name, value in self.options.items()},
        )


def is_decode_step(shape: tuple[int, ...], cache: Cache | None) -> bool:
    """Whether a (B, L) batch is one new text token per row.

    Nothing is then checked or read back from the device, so that the step compiles to one graph.
    """
    return cache is not None and shape[1] == 1


def build_context(
    embeddings: torch.Tensor,
    tokens: TokenInfo,
    *,
    config: VividMedConfig,
    rotary: Callable[[torch.Tensor, torch.dtype], tuple[torch.Tensor, torch.Tensor]],
    cache: Cache | None,
    use_cache: bool | None,
    options: Mapping[str, Any],
) -> DecoderContext:
    """Work out everything that the layers share.

    Samples packed into one row only see themselves: they are numbered, and then masked or, for flash attention, laid
    end to end. Turns that do not see each other are masked.

    Args:
        embeddings: (B, L, C).
        tokens: mask, positions and types of the tokens.
        config: names the attention implementation.
        rotary: positions and dtype to cosine and sine.
        cache: tokens before these.
        use_cache: create a cache if there is none.
        options: further arguments of the attention implementation.

    Raises:
        VividMedError: packed samples or independent turns come with a cache or without positions, or turns are
            independent and the attention implementation takes no mask or is limited to a window.
    """
    shape = (embeddings.shape[0], embeddings.shape[1])
    position_ids, padding_mask = tokens.position_ids, tokens.padding_mask
    samples = padding_mask[:, -shape[1] :] if padding_mask is not None else None
    decode_step = is_decode_step(shape, cache)
    packed = False
    if not decode_step and (samples is not None or tokens.attention_mask is None):
        samples = number_samples(samples, position_ids, shape, tokens.turn_ids)
        packed = is_packed(samples)
    if packed and cache is not None:
        raise VividMedError(
            "packed samples cannot use a cache: pass each sample in a row of its own, or leave the cache out"
        )
    if packed and position_ids is None:
        raise VividMedError("packed rows need position_ids: pass those that the collator returned")
    if tokens.turn_ids is not None:
        _check_turns(cache, position_ids, config)
    if use_cache and cache is None and not packed and tokens.turn_ids is None:
        cache = growing(DynamicCache(config=config))
    if position_ids is None:
        position_ids = count_positions(padding_mask, shape, cache, embeddings.device)

    # Flash attention takes samples laid end to end, without padding or mask.
    end_to_end = cache is None and "flash" in config._attn_implementation
    if decode_step:
        routing = TokenRouting.text(shape)
    else:
        routing = TokenRouting.build(tokens.token_type_ids, samples, shape, end_to_end)
    causal_mask = window_mask = None
    if end_to_end:
        position_ids, lengths = lay_end_to_end(position_ids.expand(shape), samples)
        options = {**options, **lengths}
    else:
        hiding = [same_sample(samples)] if packed and samples is not None else []
        if tokens.turn_ids is not None:
            hiding.append(same_turn(tokens.turn_ids))
        arguments = {
            "config": config,
            "inputs_embeds": embeddings,
            "attention_mask": samples if packed else tokens.attention_mask,
            **as_cache_argument(cache),
        }
        causal_mask = create_causal_mask(**arguments, and_mask_function=_all_of(hiding))
        window = config.text_config.attention_window
        if window is not None:
            hiding.append(within_window(window))
            window_mask = create_causal_mask(**arguments, and_mask_function=_all_of(hiding))
    return DecoderContext(
        routing, rotary(position_ids, embeddings.dtype), causal_mask, window_mask, cache, options
    )


def _check_turns(cache: Cache | None, position_ids: torch.Tensor | None, config: VividMedConfig) -> None:
    if cache is not None:
        raise VividMedError("independent turns cannot use a cache: leave turn_ids or the cache out")
    if position_ids is None:
        raise VividMedError("independent turns need position_ids: pass those that the processor returned")
    implementation = config._attn_implementation
    if "flash" in implementation:
        raise VividMedError(
            f"attention {implementation!r} cannot hide turns from each other: load the model with "
            "attn_implementation='sdpa', or leave independent_turns out"
        )
    if config.text_config.attention_window is not None:
        raise VividMedError(
            "independent turns: attention within a window would count the tokens of other turns; leave "
            "independent_turns out"
        )


def _all_of(mask_functions: Sequence[Callable]) -> Callable | None:
    return and_masks(*mask_functions) if mask_functions else None
