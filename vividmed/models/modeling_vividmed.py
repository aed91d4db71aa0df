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
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import cached_file, can_return_tuple

from vividmed.errors import VividMedError
from vividmed.models.adapters.settings import (
    ADAPTER_SETTINGS_FILE,
    GROUNDING_MODULES,
    prepare_base,
    read_adapter_settings,
)
from vividmed.models.backbone import VividMedModel
from vividmed.models.base import VividMedCausalLMOutput, VividMedPreTrainedModel
from vividmed.models.cache import CACHE_NAME, as_cache_argument
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.grounded_generation import GroundedGenerationMixin
from vividmed.models.language_loss import shifted_labels, weighted_token_loss
from vividmed.models.layout import TokenInfo, check_shape, number_samples
from vividmed.models.phrases.grounding import (
    GroundingLabels,
    GroundingLosses,
    GroundingLossOutput,
    GroundingProjection,
    PhraseBatch,
    SampleIndex,
    grounding_loss,
)
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

__all__ = ["VividMedForCausalLM", "VividMedModel"]


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

    def load_adapter(self, peft_model_id: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter, after giving the model what the adapter needs; see the parent's method."""
        if peft_model_id is not None:
            path = cached_file(
                peft_model_id,
                ADAPTER_SETTINGS_FILE,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            prepare_base(self, read_adapter_settings(None if path is None else Path(path)))
        return super().load_adapter(peft_model_id, *args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse segmenters that the model has no place for, which PEFT would drop without a word."""
        lacking = [name for name in GROUNDING_MODULES if getattr(self, name) is None]
        dropped = next(
            (key for key in state_dict if key.startswith(tuple(f"{prefix}{n}." for n in lacking))), None
        )
        if lacking and dropped is not None:
            raise VividMedError(
                f"{dropped.removeprefix(prefix)}: the model has no segmenter for it; load the adapter with "
                "VividMedForCausalLM.from_pretrained(ADAPTER) or model.load_adapter(ADAPTER), which add the segmenters"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

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
        turn_ids: torch.Tensor | None = None,
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
        output_last_state: bool = False,
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
            output_last_state: return the state of the last position too.

        Raises:
            VividMedError: inputs do not fit together or the model; labels are not shifted.
        """
        labels = shifted_labels(labels, shift_labels, input_ids)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
            turn_ids=turn_ids,
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
            tokens = TokenInfo(attention_mask, position_ids, token_type_ids, turn_ids)
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
            last_state=states[:, -1] if output_last_state else None,
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
            tokens.padding_mask,
            tokens.position_ids,
            (input_ids.shape[0], input_ids.shape[1]),
            tokens.turn_ids,
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
