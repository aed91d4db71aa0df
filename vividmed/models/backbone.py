"""Vision tower and decoder, without a head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from vividmed.errors import VividMedError
from vividmed.models.base import VividMedPreTrainedModel
from vividmed.models.cache import as_cache_argument, growing, single_cache
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.context import DecoderContext, build_context, is_decode_step
from vividmed.models.language import VividMedDecoderLayer, VividMedRMSNorm, VividMedRotaryEmbedding
from vividmed.models.layer_stack import differentiable_input, stream_dtype
from vividmed.models.layout import TokenInfo, check_token_ids
from vividmed.models.vision import VividMedVisionTower, check_images


class VividMedModel(VividMedPreTrainedModel):
    """Vision tower and decoder, without a head."""

    # Checkpoints of the model with its head load here too.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *VividMedPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(lm_head|segmenter|instance_segmenter|grounding_projection)\.",
    ]

    def __init__(self, config: VividMedConfig):
        super().__init__(config)
        text = config.text_config
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.vision = VividMedVisionTower(config)
        self.layers = nn.ModuleList(
            VividMedDecoderLayer(config, index) for index in range(text.num_hidden_layers)
        )
        self.norm = VividMedRMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.rotary_emb = VividMedRotaryEmbedding(text)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Sequence[torch.Tensor],
        patch_sizes: torch.Tensor | Sequence[Sequence[int]],
        pool_sizes: torch.Tensor | Sequence[Sequence[int]],
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode images; ``pooler_output`` is a list with (n, hidden_size) of each image.

        Args:
            pixel_values: the images of the whole batch, each (3, D, H, W), normalised.
            patch_sizes: (images, 3), z, y, x.
            pool_sizes: (images, 3), z, y, x.
        """
        images = [image.to(self.device) for image in pixel_values]
        sizes = check_images(images, patch_sizes, pool_sizes, self.config.vision_config.num_channels)
        return BaseModelOutputWithPooling(pooler_output=self.vision(images, *sizes))

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        turn_ids: torch.Tensor | None = None,
        pixel_values: Sequence[torch.Tensor] | None = None,
        patch_sizes: torch.Tensor | None = None,
        pool_sizes: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder on text and images.

        Args:
            input_ids: (B, L); values at the places of image tokens are not read.
            attention_mask: (B, L), 0 at padding on either side. Values above 1 number the samples packed into a row,
                each of which sees only itself.
            position_ids: (B, L), may repeat; by default real tokens are counted from 0. Where positions decrease, a
                new packed sample starts.
            token_type_ids: (B, L), 0 for text, k for the tokens of the k-th image of the sample.
            turn_ids: (B, L), for turns that do not see each other: k >= 1 for the tokens of the k-th turn, whose
                positions follow those of the tokens before the first turn (0), which every turn sees.
            pixel_values: images of the batch, in the order of samples and of mention, each (3, D, H, W).
            patch_sizes: (images, 3), z, y, x.
            pool_sizes: (images, 3), z, y, x.
            mm_encoder_outputs: ``{"image": ...}`` of :meth:`get_image_features`, instead of ``pixel_values``.
            past_key_values: a cache of the tokens before these.
            cache: the same under the name that transformers uses from 5.24 on.
            inputs_embeds: (B, L, C), instead of ``input_ids``.
            use_cache: return a cache.
            **kwargs: ``output_hidden_states``, and arguments of the attention implementation.

        Returns:
            ``last_hidden_state`` (B, L, C) after the final norm, zero at padding.

        Raises:
            VividMedError: a tensor does not fit the others, a token id is not in the vocabulary, the images do not
                fill exactly the places that the token types reserve for them, packed samples or independent turns meet a
                cache, or the attention implementation cannot hide turns from each other.
        """
        output_hidden_states = kwargs.pop("output_hidden_states", None)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = self._usable_cache(single_cache(past_key_values, cache))
        tokens = TokenInfo(attention_mask, position_ids, token_type_ids, turn_ids)
        embeddings = self._embed_text(input_ids, inputs_embeds, tokens, cache)
        if not is_decode_step(embeddings.shape, cache):
            images = self._encode_images(pixel_values, patch_sizes, pool_sizes, mm_encoder_outputs)
            embeddings = self._place_images(embeddings, token_type_ids, images)
        first: Any = self.layers[0]
        embeddings = embeddings.to(stream_dtype(first.mlp.language_mlp.down_proj.weight, embeddings))
        context = build_context(
            embeddings,
            tokens,
            config=self.config,
            rotary=self.rotary_emb,
            cache=cache,
            use_cache=use_cache,
            options=kwargs,
        )
        last_hidden_state, hidden_states = self._decode(embeddings, context, output_hidden_states)
        return BaseModelOutputWithPast(
            last_hidden_state=last_hidden_state,
            hidden_states=hidden_states,
            **as_cache_argument(context.cache),
        )

    def _usable_cache(self, cache: Cache | None) -> Cache | None:
        """The cache, unless layers are checkpointed: their second run would extend it again."""
        if cache is None:
            return None
        if not (self.training and self.gradient_checkpointing and torch.is_grad_enabled()):
            return growing(cache)
        if cache.get_seq_length() > 0:
            raise VividMedError(
                "a cache with tokens in it cannot be used while activations are checkpointed: "
                "pass the whole sequence, or call model.eval()"
            )
        return None

    def _embed_text(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        tokens: TokenInfo,
        cache: Cache | None,
    ) -> torch.Tensor:
        """(B, L, C), with meaningless values at the places of image tokens, after a check of all shapes."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise VividMedError("give exactly one of input_ids and inputs_embeds")
        # From the configuration, because adapters wrap the embedding in a module of their own.
        width = self.config.text_config.hidden_size
        if given.ndim != (2 if given is input_ids else 3) or (
            given is inputs_embeds and given.shape[2] != width
        ):
            wanted = (
                "input_ids (samples, tokens)"
                if given is input_ids
                else f"inputs_embeds (samples, tokens, {width})"
            )
            raise VividMedError(f"the model takes {wanted}, not a tensor of shape {tuple(given.shape)}")
        shape = (given.shape[0], given.shape[1])
        if is_decode_step(shape, cache):
            return given if input_ids is None else self.embed_tokens(input_ids)
        tokens.check(shape, None if cache is None else int(cache.get_seq_length()))
        if input_ids is None:
            return given
        if tokens.token_type_ids is not None:
            input_ids = input_ids.masked_fill(tokens.token_type_ids > 0, 0)
        check_token_ids(input_ids, self.config.text_config.vocab_size)
        return self.embed_tokens(input_ids)

    def _decode(
        self, embeddings: torch.Tensor, context: DecoderContext, output_hidden_states: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """Run all layers on (B, L, C); returns the last state and, if asked for, those before each layer too."""
        routing = context.routing
        hidden_states: tuple[torch.Tensor, ...] = ()
        tokens = differentiable_input(routing.to_tokens(embeddings), self.layers)
        for layer in self.layers:
            if output_hidden_states:
                # The way back to tokens keeps the returned state in the graph, so that it has a gradient.
                hidden_states += (routing.to_batch(tokens),)
                tokens = routing.to_tokens(hidden_states[-1])
            tokens = layer(tokens, context)
        last_hidden_state = routing.to_batch(self.norm(tokens))
        return last_hidden_state, (*hidden_states, last_hidden_state) if output_hidden_states else None

    def _encode_images(
        self,
        pixel_values: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | None,
        pool_sizes: torch.Tensor | None,
        encoded: dict[str, BaseModelOutputWithPooling] | None,
    ) -> list[torch.Tensor]:
        """The tokens (n, C) of each image, from whichever argument gives them."""
        if encoded and encoded.get("image") is not None:
            if pixel_values is not None:
                raise VividMedError("give either pixel_values or mm_encoder_outputs, not both")
            return encoded["image"].pooler_output
        if pixel_values is not None and len(pixel_values):
            if patch_sizes is None or pool_sizes is None:
                raise VividMedError(
                    "pixel_values need patch_sizes and pool_sizes, as the processor returns them"
                )
            return self.get_image_features(pixel_values, patch_sizes, pool_sizes).pooler_output
        if self.training and torch.is_grad_enabled():
            # A process whose batch has no image still takes part in the tower's gradients.
            return self.vision([], [], [])
        return []

    def _place_images(
        self, inputs_embeds: torch.Tensor, token_type_ids: torch.Tensor | None, images: list[torch.Tensor]
    ) -> torch.Tensor:
        """Put image tokens at the places where the token types are above 0."""
        if token_type_ids is None:
            places = torch.empty(0, dtype=torch.long, device=inputs_embeds.device)
        else:
            places = (token_type_ids > 0).flatten().nonzero().squeeze(1)
        found = sum(len(image) for image in images)
        if len(places) != found:
            raise VividMedError(
                f"token_type_ids reserve {len(places)} places for image tokens but the images give {found}: "
                "pass the pixel_values, patch_sizes and pool_sizes that the processor returned with them"
            )
        if not images:
            return inputs_embeds
        flat = inputs_embeds.flatten(0, 1)
        features = torch.cat([image.to(flat.device) for image in images]).to(flat.dtype)
        return flat.index_copy(0, places, features).view_as(inputs_embeds)
