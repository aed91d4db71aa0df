"""Generation with ragged images, padded prompts and the position rule of phrase markers."""

from typing import Any

import torch
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vividmed.models.cache import CACHE_NAMES, as_cache_argument, single_cache


def extend_position_ids(
    position_ids: torch.Tensor, input_ids: torch.Tensor, phrase_start_token_id: int, phrase_end_token_id: int
) -> torch.Tensor:
    """Positions of a prompt and of the tokens after it.

    A token repeats the position before it if that token is ``<p>`` or it is itself ``</p>``; else it takes the next.

    Args:
        position_ids: (B, P) of the prompt.
        input_ids: (B, L), L >= P, prompt and new tokens.
        phrase_start_token_id: id of ``<p>``.
        phrase_end_token_id: id of ``</p>``.

    Returns:
        (B, L).
    """
    length = position_ids.shape[1]
    previous, current = input_ids[:, length - 1 : -1], input_ids[:, length:]
    repeats = (previous == phrase_start_token_id) | (current == phrase_end_token_id)
    steps = (~repeats).to(position_ids.dtype).cumsum(dim=1)
    return torch.cat([position_ids, position_ids[:, -1:] + steps], dim=1)


def pad_left(batch: dict[str, Any]) -> dict[str, Any]:
    """Move the padding of right-padded prompts to the left, where generation needs it.

    Args:
        batch: model inputs with ``attention_mask`` (B, L); ``input_ids``, ``token_type_ids`` and ``position_ids``
            are moved along.
    """
    mask = batch["attention_mask"]
    padding = mask.flip(1).cumsum(1).eq(0).sum(1, keepdim=True)
    length = mask.shape[1]
    source = (torch.arange(length, device=mask.device) - padding) % length
    keys = ("attention_mask", "input_ids", "token_type_ids", "position_ids")
    return batch | {key: batch[key].gather(1, source) for key in keys if batch.get(key) is not None}


class VividMedGenerationMixin(GenerationMixin):
    """What ``generate`` needs to know about VividMed's inputs."""

    def generate(self, inputs: torch.Tensor | None = None, generation_config: Any = None, **kwargs: Any):
        """Generate from a processor's batch, padded on either side.

        Everything is as in :meth:`transformers.GenerationMixin.generate`; the returned sequences are left-padded.
        Entries of the batch that only grounding uses are left aside.
        """
        if inputs is not None:
            kwargs["input_ids"] = inputs
        cache = single_cache(*(kwargs.pop(name, None) for name in CACHE_NAMES))
        if cache is not None:
            kwargs |= as_cache_argument(cache)
        for name in ("geometry", "grounding_values"):
            kwargs.pop(name, None)
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2 and not bool(mask[:, -1].all()):
            kwargs = pad_left(kwargs)
        return super().generate(generation_config=generation_config, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if position_ids is not None and position_ids.shape[1] < input_ids.shape[1]:
            position_ids = extend_position_ids(
                position_ids, input_ids, self.config.phrase_start_token_id, self.config.phrase_end_token_id
            )
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if is_first_iteration and attention_mask is not None:
            # The prompt's padding must stay visible, also where a static cache had a 4D mask made of it.
            model_inputs["attention_mask"] = attention_mask
        return model_inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        # Positions of new tokens depend on the tokens, which are not known here: keep the prompt's.
        position_ids = model_kwargs.pop("position_ids", None)
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if position_ids is not None:
            model_kwargs["position_ids"] = position_ids
        return model_kwargs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        encoded = model_kwargs.pop("mm_encoder_outputs", None)
        if expand_size > 1 and encoded and encoded.get("image") is not None:
            counts = model_kwargs["token_type_ids"].amax(dim=1).tolist()
            images = iter(encoded["image"].pooler_output)
            samples = [[next(images) for _ in range(count)] for count in counts]
            repeated = [image for sample in samples for _ in range(expand_size) for image in sample]
            encoded = {"image": BaseModelOutputWithPooling(pooler_output=repeated)}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **model_kwargs,
        )
        if encoded is not None:
            model_kwargs["mm_encoder_outputs"] = encoded
        return input_ids, model_kwargs
