"""Shared by both VividMed models: output class, initialisation and the attributes that the library reads."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from vividmed.errors import VividMedError
from vividmed.models.adapters.settings import ROUNDING
from vividmed.models.cache import CACHE_NAMES
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.language import VividMedAttention
from vividmed.models.loading import CheckedPreTrainedModel
from vividmed.models.quantization import keep_full_precision
from vividmed.models.vision import ParameterModule, VividMedVisionTower


@dataclass
class VividMedCausalLMOutput(CausalLMOutputWithPast):
    """Output of :class:`VividMedForCausalLM`: that of the library's language models, and more for training.

    Attributes:
        loss: 0-dim, the weighted sum of ``loss_components``; None without labels.
        logits: (B, L, vocabulary) or the last positions asked for; None when skipped.
        past_key_values: the cache; named ``cache`` from transformers 5.24 on.
        hidden_states: embeddings, then the output of each layer, each (B, L, C) and zero at padding; the last is
            after the final norm.
        attentions: the weights of each layer, where the attention implementation gives them.
        loss_components: the parts of the loss by name, each 0-dim and detached.
        mask_logits: for each sample the detached logits (n, D, H, W) of the masks that its ``grounding_labels``
            name, in their order; None without ``grounding_labels`` or without a segmenter.
        last_state: (B, C), the last position's state after the final norm; None unless asked for.
    """

    loss_components: dict[str, torch.Tensor] | None = None
    mask_logits: list[torch.Tensor] | None = None
    last_state: torch.Tensor | None = None


class VividMedPreTrainedModel(CheckedPreTrainedModel):
    """Initialisation, loading, and the attributes that the library reads from every model."""

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

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint as :meth:`CheckedPreTrainedModel.from_pretrained` does.

        Args:
            pretrained_model_name_or_path: folder or Hub id of a model, or of an adapter, whose base model is then
                loaded with it.
            *model_args: further arguments of the constructor.
            quantization_config: how to quantise. Unless it names modules to skip, those of
                :data:`~vividmed.models.quantization.FULL_PRECISION_MODULES` keep their precision.
            **kwargs: other arguments of the parent's method.

        Raises:
            VividMedError: the checkpoint cannot be read, or is incomplete.
        """
        if quantization_config is not None:
            kwargs["quantization_config"] = keep_full_precision(quantization_config)
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)

    def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter as transformers does, completely or not at all.

        Raises:
            VividMedError: the adapter has tensors that the model has no place for, or lacks some of its own.
        """
        report = super().load_adapter(*args, **kwargs)
        source = str(args[0] if args else kwargs.get("peft_model_id", "the adapter"))
        mismatched = {name for name, *_ in report.mismatched_keys}
        # The rows of a tied head are those of the embedding, under a second name.
        named = dict(self.named_parameters(remove_duplicate=False))
        loaded = {id(parameter) for name, parameter in named.items() if name not in report.missing_keys}
        report.missing_keys = {name for name in report.missing_keys if id(named.get(name)) not in loaded}
        for names, fault in (
            (report.unexpected_keys, "tensors that the model has no place for"),
            (report.missing_keys - mismatched, "tensors too few"),
            (mismatched, "tensors of other shapes than the model's"),
        ):
            if names:
                raise VividMedError(
                    f"{source}: the adapter has {len(names)} {fault} ({sorted(names)[0]}); load it onto the base model "
                    "that it was trained on, with its segmenters, or convert it first"
                )
        return report

    @staticmethod
    def _load_pretrained_model(*args: Any, **kwargs: Any) -> Any:
        """Load tensors as the library does; the one that only asks for a setting is not reported as unexpected."""
        found, *rest = CheckedPreTrainedModel._load_pretrained_model(*args, **kwargs)
        found.unexpected_keys.discard(ROUNDING)
        return found, *rest

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ParameterModule):
            init.normal_(module.weight, std=std)
        elif isinstance(module, VividMedVisionTower):
            init.normal_(module.boi, std=std)
            init.normal_(module.eoi, std=std)
