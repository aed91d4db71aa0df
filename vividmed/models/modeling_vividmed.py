"""VividMed: vision tower, decoder with vision experts, language head and segmenters.

Notable features:

- a ragged 3D EVA2-CLIP tower: images of any size and depth in one pass, without padding (``vision.py``)
- patches whose thickness follows the image, from one set of weights (``depth.py``)
- one expert for image tokens and one for text; tokens are routed once per forward, not in every layer, and each
  expert is a dense product on a slice (``experts.py``)
- positions that repeat: the patches of an image share one, and ``<p>`` and ``</p>`` do not advance them
  (``generation.py``)
- padded, packed and padding-free batches with the same results (``layout.py``)
- labels that are already shifted and weighted, with logits for supervised tokens only (``language_loss.py``)
- states that predict ``</p>`` as prompts of two 3D segmenters, for masks and for instances (``grounding.py``)
- segmenters that stay in float32 whatever the decoder's precision
- a gradient for every parameter in every training step, which sharded training needs (``segmenter/``)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from vividmed.errors import VividMedError
from vividmed.models.base import VividMedCausalLMOutput, VividMedPreTrainedModel
from vividmed.models.cache import CACHE_NAME, as_cache_argument, single_cache
from vividmed.models.checkpointing import differentiable_input
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.context import DecoderContext, build_context, is_decode_step
from vividmed.models.grounded_generation import GroundedGenerationMixin
from vividmed.models.grounding import (
    GroundingLabels,
    GroundingLosses,
    GroundingLossOutput,
    GroundingProjection,
    PhraseBatch,
    SampleIndex,
    grounding_loss,
)
from vividmed.models.language import VividMedDecoderLayer, VividMedRMSNorm, VividMedRotaryEmbedding
from vividmed.models.language_loss import shifted_labels, weighted_token_loss
from vividmed.models.layout import TokenInfo, check_shape, check_token_ids, number_samples
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
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
                fill exactly the places that the token types reserve for them, or packed samples meet a cache.
        """
        output_hidden_states = kwargs.pop("output_hidden_states", None)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = self._usable_cache(single_cache(past_key_values, cache))
        tokens = TokenInfo(attention_mask, position_ids, token_type_ids)
        embeddings = self._embed_text(input_ids, inputs_embeds, tokens, cache)
        if not is_decode_step(embeddings.shape, cache):
            images = self._encode_images(pixel_values, patch_sizes, pool_sizes, mm_encoder_outputs)
            embeddings = self._place_images(embeddings, token_type_ids, images)
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
        if cache is None or not (self.training and self.gradient_checkpointing and torch.is_grad_enabled()):
            return cache
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
        width = self.embed_tokens.embedding_dim
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
        check_token_ids(input_ids, self.embed_tokens.num_embeddings)
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


class VividMedForCausalLM(VividMedPreTrainedModel, GroundedGenerationMixin):
    """VividMed with its language head and, if configured, its segmenters: training loss, generation, grounding.

    Segmenters and the projection that prompts them stay in float32 whatever precision the decoder is loaded in.

    Args:
        config: sizes of the parts; segmenters are optional.
        grounding_losses: losses of masks and instances, by default the published ones. ``from_pretrained`` takes
            them under the same name.

    Example:
        >>> processor = VividMedProcessor.from_pretrained(folder)
        >>> model = VividMedForCausalLM.from_pretrained(folder)
        >>> batch = processor(images="chest.png", text="What is the modality of this image?")
        >>> processor.batch_decode(model.generate(**batch, max_new_tokens=32), skip_special_tokens=True)
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012
    _fsdp_plan = {"lm_head": "keep_full_weight"}  # noqa: RUF012
    _keep_in_fp32_modules_strict = {"segmenter", "instance_segmenter", "grounding_projection"}  # noqa: RUF012
    accepts_loss_kwargs = True

    def __init__(self, config: VividMedConfig, *, grounding_losses: GroundingLosses | None = None):
        super().__init__(config)
        text = config.text_config
        self.model = VividMedModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.segmenter = None if config.segmenter_config is None else Segmenter(config.segmenter_config)
        self.instance_segmenter = (
            None
            if config.instance_segmenter_config is None
            else InstanceSegmenter(config.instance_segmenter_config)
        )
        self.grounding_projection = (
            None if config.prompt_size is None else GroundingProjection(text.hidden_size, config.prompt_size)
        )
        self.grounding_losses = grounding_losses or GroundingLosses()
        self.post_init()

    def get_image_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode images; see :meth:`VividMedModel.get_image_features`."""
        return self.model.get_image_features(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: Sequence[torch.Tensor] | None = None,
        patch_sizes: torch.Tensor | None = None,
        pool_sizes: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        label_weights: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        grounding_values: Sequence[torch.Tensor] | None = None,
        grounding_labels: Sequence[GroundingLabels] | None = None,
        num_samples_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> VividMedCausalLMOutput:
        """Run the model; arguments not listed here are those of :meth:`VividMedModel.forward`.

        Args:
            labels: (B, L), ALREADY SHIFTED, as the published format needs it (not every label is the next token):
                ``labels[b, l]`` is what position l predicts. -100 is not supervised. Labels that repeat
                ``input_ids``, the convention of most models of transformers, are refused.
            shift_labels: another name of ``labels``, which transformers uses for labels that are already shifted; it
                takes precedence.
            label_weights: (B, L), weight of each label in the loss; 1 by default.
            logits_to_keep: return the logits of that many last positions only (0: all).
            skip_logits: return no logits; by default while training with labels, whose loss does not need them.
            num_items_in_batch: number of labels to average over when the batch is part of a larger one.
            grounding_values: images of the batch, each (3, D, H, W) in [0, 1]; needed with ``grounding_labels``.
            grounding_labels: for each sample, what is known of its phrases. Their loss is added to that of the text.
            num_samples_in_batch: number of samples to average the grounding loss over when the batch is part of a
                larger one.

        Raises:
            VividMedError: inputs do not fit together or the model; labels are not shifted.
        """
        labels = shifted_labels(labels, shift_labels, input_ids)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            patch_sizes=patch_sizes,
            pool_sizes=pool_sizes,
            mm_encoder_outputs=mm_encoder_outputs,
            past_key_values=past_key_values,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state
        losses: dict[str, torch.Tensor] = {}
        components: dict[str, torch.Tensor] = {}
        mask_logits = None
        if labels is not None:
            check_shape("labels", labels, {tuple(states.shape[:2])})
            check_shape("label_weights", label_weights, {tuple(states.shape[:2])})
            losses["lm_loss"] = weighted_token_loss(
                states, labels, label_weights, self.lm_head, num_items_in_batch
            )
        if grounding_labels is not None:
            tokens = TokenInfo(attention_mask, position_ids, token_type_ids)
            phrases = self.phrases(states, input_ids, tokens, grounding_values, patch_sizes)
            grounding = self._grounding_loss(phrases, grounding_labels, num_samples_in_batch)
            losses["grounding_loss"] = grounding.total
            components, mask_logits = grounding.components, grounding.masks
        logits = None
        if not (self.training and labels is not None if skip_logits is None else skip_logits):
            logits = self.lm_head(slice_logits_to_keep(states, logits_to_keep)).float()
        return VividMedCausalLMOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            loss_components={name: loss.detach() for name, loss in losses.items()} | components
            if losses
            else None,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            mask_logits=mask_logits,
            **as_cache_argument(getattr(outputs, CACHE_NAME)),
        )

    def phrases(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor | None,
        tokens: TokenInfo,
        grounding_values: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | None,
    ) -> PhraseBatch:
        """The phrases of a batch and the images they are in, ready for the segmenters.

        Args:
            hidden_states: (B, L, C) after the final norm.
            input_ids: (B, L).
            tokens: mask, positions and types of the tokens.
            grounding_values: images of the batch, each (3, D, H, W) in [0, 1].
            patch_sizes: (images, 3).

        Raises:
            VividMedError: the model has no segmenter, or inputs are missing.
        """
        if self.grounding_projection is None:
            raise VividMedError(
                "this model has no segmenters and cannot ground: load one that was trained with grounding, "
                "or pass grounding='off' and no grounding_labels"
            )
        if input_ids is None:
            raise VividMedError("grounding needs input_ids, in which the phrases are marked")
        samples = number_samples(
            tokens.padding_mask, tokens.position_ids, (input_ids.shape[0], input_ids.shape[1])
        )
        return PhraseBatch.build(
            hidden_states,
            input_ids,
            SampleIndex.build(input_ids, samples),
            token_type_ids=tokens.token_type_ids,
            images=grounding_values,
            patch_sizes=patch_sizes,
            projection=self.grounding_projection,
            phrase_end_token_id=self.config.phrase_end_token_id,
        )

    def _grounding_loss(
        self,
        phrases: PhraseBatch,
        labels: Sequence[GroundingLabels],
        num_samples: torch.Tensor | int | None,
    ) -> GroundingLossOutput:
        with torch.autocast(self.device.type, enabled=False):
            return grounding_loss(
                phrases,
                labels,
                segmenter=self.segmenter,
                instance_segmenter=self.instance_segmenter,
                losses=self.grounding_losses,
                num_samples=len(phrases.prompts) if num_samples is None else num_samples,
            )
