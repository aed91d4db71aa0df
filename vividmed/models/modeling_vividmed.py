"""VividMed: vision tower, decoder with vision experts, language head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import PreTrainedModel, slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from vividmed.errors import VividMedError
from vividmed.models.cache import CACHE_NAME, CACHE_NAMES, as_cache_argument, single_cache
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.experts import TokenRouting
from vividmed.models.grounded_generation import GroundedGenerationMixin
from vividmed.models.grounding import GroundingLabels, GroundingProjection
from vividmed.models.language import (
    VividMedAttention,
    VividMedDecoderLayer,
    VividMedRMSNorm,
    VividMedRotaryEmbedding,
)
from vividmed.models.language_loss import weighted_token_loss
from vividmed.models.segmenter.losses import InstanceLoss, MaskLoss
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.models.vision import ParameterModule, VividMedVisionTower, sequence_lengths


@dataclass
class VividMedCausalLMOutput(CausalLMOutputWithPast):
    """Output of :class:`VividMedForCausalLM`: that of the library's language models, and the parts of the loss.

    Attributes:
        loss: 0-dim, the weighted sum of ``loss_components``; None without labels.
        logits: (B, L, vocabulary) or the last positions asked for; None when skipped.
        past_key_values: the cache; named ``cache`` from transformers 5.24 on.
        hidden_states: embeddings, then the output of each layer, each (B, L, C) and zero at padding; the last is
            after the final norm.
        attentions: the weights of each layer, where the attention implementation gives them.
        loss_components: the parts of the loss by name, each 0-dim and detached.
    """

    loss_components: dict[str, torch.Tensor] | None = None


class VividMedPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and what the library asks of every model."""

    config: VividMedConfig
    config_class = VividMedConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["VividMedDecoderLayer", "VividMedVisionLayer"]  # noqa: RUF012
    _skip_keys_device_placement = list(CACHE_NAMES)  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"attentions": VividMedAttention}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ParameterModule):
            init.normal_(module.weight, std=std)
        elif isinstance(module, VividMedVisionTower):
            init.normal_(module.boi, std=std)
            init.normal_(module.eoi, std=std)


class VividMedModel(VividMedPreTrainedModel):
    """Vision tower and decoder, without a head."""

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
        tokens = self.vision(
            images, torch.as_tensor(patch_sizes).tolist(), torch.as_tensor(pool_sizes).tolist()
        )
        return BaseModelOutputWithPooling(pooler_output=tokens)

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
            input_ids: (B, L); values at image places are not read.
            attention_mask: (B, L), 0 at padding on either side. Values above 1 number the samples packed in a row,
                each of which sees only itself.
            position_ids: (B, L), may repeat; default: counts real tokens from 0.
            token_type_ids: (B, L), 0 for text, k for the tokens of the k-th image of the sample.
            pixel_values: images of the batch, in order of samples and of mention, each (3, D, H, W).
            patch_sizes: (images, 3), z, y, x.
            pool_sizes: (images, 3), z, y, x.
            mm_encoder_outputs: ``{"image": ...}`` of :meth:`get_image_features`, instead of ``pixel_values``.
            past_key_values: a cache of the tokens before these; ``cache`` is the same under the name that
                transformers uses from 5.24 on.
            cache: see ``past_key_values``.
            inputs_embeds: (B, L, C), instead of ``input_ids``.
            use_cache: return a cache.

        Returns:
            ``last_hidden_state`` (B, L, C) after the final norm, zero at padding.

        Raises:
            VividMedError: when the images do not fill exactly the places the token types keep for them.
        """
        cache = single_cache(past_key_values, cache)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        shape = tuple(inputs_embeds.shape[:2])

        images = self._encoded_images(pixel_values, patch_sizes, pool_sizes, mm_encoder_outputs)
        decoding = cache is not None and shape[1] == 1
        if not decoding:
            inputs_embeds = self._place_images(inputs_embeds, token_type_ids, images)

        # 0 at padding, else the number of the token's sample in its row; unknown where the mask is prepared already.
        samples = (
            attention_mask[:, -shape[1] :]
            if attention_mask is not None and attention_mask.ndim == 2
            else None
        )
        packed = samples is not None and cache is None and bool(samples.max() > 1)
        if use_cache and cache is None and not packed:
            cache = DynamicCache(config=self.config)
        if position_ids is None:
            if packed:
                raise ValueError("packed rows need position_ids")
            position_ids = self._count_positions(attention_mask, shape, cache, inputs_embeds.device)

        # Flash attention takes samples laid end to end, without padding or mask.
        flat = cache is None and "flash" in self.config._attn_implementation
        routing = (
            TokenRouting.text(shape) if decoding else TokenRouting.build(token_type_ids, samples, shape, flat)
        )
        causal_mask = None
        if flat:
            position_ids, lengths = self._lay_end_to_end(position_ids.expand(shape), samples)
            kwargs |= lengths
        else:
            causal_mask = create_causal_mask(
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                **as_cache_argument(cache),
                and_mask_function=_same_sample(samples) if packed and samples is not None else None,
            )
        position_embeddings = self.rotary_emb(position_ids, inputs_embeds.dtype)

        output_hidden_states = kwargs.pop("output_hidden_states", None)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        hidden_states: tuple[torch.Tensor, ...] = ()
        tokens = routing.to_tokens(inputs_embeds)
        for layer in self.layers:
            if output_hidden_states:
                hidden_states += (routing.to_batch(tokens),)
            tokens = layer(tokens, routing, position_embeddings, causal_mask, cache, **kwargs)
        last_hidden_state = routing.to_batch(self.norm(tokens))
        return BaseModelOutputWithPast(
            last_hidden_state=last_hidden_state,
            **as_cache_argument(cache),
            hidden_states=(*hidden_states, last_hidden_state) if output_hidden_states else None,
        )

    def _encoded_images(
        self,
        pixel_values: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | None,
        pool_sizes: torch.Tensor | None,
        encoded: dict[str, BaseModelOutputWithPooling] | None,
    ) -> list[torch.Tensor]:
        if encoded and encoded.get("image") is not None:
            if pixel_values is not None:
                raise ValueError("give either pixel_values or mm_encoder_outputs, not both")
            return encoded["image"].pooler_output
        if pixel_values is not None and len(pixel_values):
            if patch_sizes is None or pool_sizes is None:
                raise ValueError("pixel_values need patch_sizes and pool_sizes")
            return self.get_image_features(pixel_values, patch_sizes, pool_sizes).pooler_output
        if self.training and torch.is_grad_enabled():
            # A rank whose batch holds no image still takes part in the tower's gradients.
            return self.vision([], [], [])
        return []

    def _place_images(
        self, inputs_embeds: torch.Tensor, token_type_ids: torch.Tensor | None, images: list[torch.Tensor]
    ) -> torch.Tensor:
        """Put image tokens where the token types say."""
        if token_type_ids is None:
            places = torch.empty(0, dtype=torch.long, device=inputs_embeds.device)
        else:
            places = (token_type_ids > 0).flatten().nonzero().squeeze(1)
        found = sum(len(image) for image in images)
        if len(places) != found:
            raise VividMedError(
                f"token_type_ids keep {len(places)} places for image tokens but the images give {found}: "
                "pass the pixel_values, patch_sizes and pool_sizes that the processor returned with them"
            )
        if not images:
            return inputs_embeds
        flat = inputs_embeds.flatten(0, 1)
        features = torch.cat([image.to(flat.device) for image in images]).to(flat.dtype)
        return flat.index_copy(0, places, features).view_as(inputs_embeds)

    @staticmethod
    def _count_positions(
        attention_mask: torch.Tensor | None,
        shape: tuple[int, int],
        cache: Cache | None,
        device: torch.device,
    ) -> torch.Tensor:
        if attention_mask is not None and attention_mask.ndim == 2:
            return (attention_mask > 0).long().cumsum(1).sub(1).clamp(min=0)[:, -shape[1] :]
        seen = cache.get_seq_length() if cache is not None else 0
        return (torch.arange(shape[1], device=device) + seen)[None]

    @staticmethod
    def _lay_end_to_end(
        position_ids: torch.Tensor, samples: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Positions (1, N) of the real tokens of a (B, L) batch, and the lengths of its samples."""
        if samples is None:
            batch_size, length = position_ids.shape
            return position_ids.reshape(1, -1), sequence_lengths([length] * batch_size, position_ids.device)
        rows, numbers = samples.nonzero(as_tuple=True)[0], samples[samples > 0]
        _, lengths = torch.stack([rows, numbers]).unique_consecutive(dim=1, return_counts=True)
        return position_ids[samples > 0][None], sequence_lengths(lengths.tolist(), position_ids.device)


def _same_sample(samples: torch.Tensor) -> Callable:
    """A mask function that keeps attention within each packed sample; ``samples`` (B, L) are their numbers."""

    def mask_function(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return samples[batch_idx, q_idx] == samples[batch_idx, kv_idx]

    return mask_function


class VividMedForCausalLM(VividMedPreTrainedModel, GroundedGenerationMixin):
    """VividMed with its language head and, if configured, its segmenters: training loss, generation, grounding.

    Segmenters and the projection that prompts them stay in float32 whatever the decoder's precision. ``mask_loss``
    and ``instance_loss`` may be replaced by others of their classes.

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

    def __init__(self, config: VividMedConfig):
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
        self.mask_loss = MaskLoss()
        self.instance_loss = InstanceLoss()
        self.post_init()

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
        """As :meth:`VividMedModel.forward`, and in addition:

        Args:
            labels: (B, L), ALREADY SHIFTED as the published format needs it (its labels are not all a next token):
                ``labels[b, l]`` is what position l predicts. -100 is not supervised.
            label_weights: (B, L), the weight of each label in the loss; default 1.
            logits_to_keep: return only the logits of so many last positions (0: all).
            skip_logits: return no logits; default: while training with labels. The loss does not need them.
            num_items_in_batch: number of labels to average over when the batch is part of a larger one.
            grounding_values: the images of the batch, each (3, D, H, W) in [0, 1]; needed with ``grounding_labels``.
            grounding_labels: for each sample, what is known of its phrases. Their loss is added to that of the text.
            num_samples_in_batch: number of samples to average the grounding loss over when the batch is part of a
                larger one.
        """
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
        loss, components = None, None
        if labels is not None:
            loss = weighted_token_loss(
                outputs.last_hidden_state, labels, label_weights, self.lm_head, num_items_in_batch
            )
            components = {"lm_loss": loss.detach()}
        if grounding_labels is not None:
            grounding = self._grounding_loss(
                outputs.last_hidden_state,
                input_ids,
                attention_mask,
                token_type_ids,
                grounding_values,
                patch_sizes,
                grounding_labels,
                num_samples_in_batch,
            )
            loss = grounding.total if loss is None else loss + grounding.total
            components = (components or {}) | {
                "grounding_loss": grounding.total.detach(),
                **grounding.components,
            }
        logits = None
        if not (self.training and labels is not None if skip_logits is None else skip_logits):
            logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)).float()
        return VividMedCausalLMOutput(
            loss=loss,
            loss_components=components,
            logits=logits,
            **as_cache_argument(getattr(outputs, CACHE_NAME)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
