"""Generation with ragged images, padded prompts and the position rule of phrase markers."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vividmed.errors import VividMedError
from vividmed.models.cache import CACHE_NAME, CACHE_NAMES, as_cache_argument, single_cache
from vividmed.models.layout import check_token_ids, is_packed, number_samples
from vividmed.models.phrases.written_states import WrittenStates


def extend_position_ids(
    position_ids: torch.Tensor, input_ids: torch.Tensor, phrase_start_token_id: int, phrase_end_token_id: int
) -> torch.Tensor:
    """Positions of a prompt and of the tokens after it.

    A token repeats the position of the token before it if that token is ``<p>`` or if it is itself ``</p>``;
    otherwise it takes the next position.

    Args:
        position_ids: (B, P) of the prompt.
        input_ids: (B, L), L >= P, prompt and new tokens.
        phrase_start_token_id: id of ``<p>``.
        phrase_end_token_id: id of ``</p>``.

    Returns:
        (B, L).
    """
    advances = _advances(input_ids, position_ids.shape[1], phrase_start_token_id, phrase_end_token_id)
    steps = advances.cumsum(dim=1, dtype=position_ids.dtype)
    return torch.cat([position_ids, position_ids[:, -1:] + steps], dim=1)


def _advances(
    input_ids: torch.Tensor, length: int, phrase_start_token_id: int, phrase_end_token_id: int
) -> torch.Tensor:
    """Which of the tokens after the first ``length`` take the next position, (B, L - length) bool."""
    previous, current = input_ids[:, length - 1 : -1], input_ids[:, length:]
    return (previous != phrase_start_token_id) & (current != phrase_end_token_id)


def _mask_of_new_token(
    embeddings: torch.Tensor, attention_mask: torch.Tensor | None, cache: Any
) -> torch.Tensor | None:
    """Attention mask of a single new token, True at the real tokens.

    The library's function takes four times as long, while the GPU waits.

    Args:
        embeddings: (B, 1, C); its values are not read.
        attention_mask: (B, cached tokens + 1), 0 at padding, or None.
        cache: the tokens before this one.

    Returns:
        (B, 1, 1, capacity of the cache) bool; None without a cache, or with one that drops old tokens.
    """
    if cache is None:
        return None
    room, offset = cache.get_mask_sizes(1, 0)
    if offset:
        return None
    if attention_mask is None:
        seen = torch.arange(room, device=embeddings.device) <= cache.get_seq_length()
        return seen.expand(len(embeddings), 1, 1, room)
    return F.pad(attention_mask.bool(), (0, room - attention_mask.shape[1]))[:, None, None]


def pad_left(batch: dict[str, Any]) -> dict[str, Any]:
    """Move the padding of right-padded prompts to the left, where generation needs it.

    Args:
        batch: model inputs with ``attention_mask`` (B, L); every other entry with one value per token moves along.
    """
    mask = batch["attention_mask"]
    padding = mask.flip(1).cumsum(1).eq(0).sum(1, keepdim=True)
    length = mask.shape[1]
    source = (torch.arange(length, device=mask.device) - padding) % length
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    keys = ("attention_mask", "input_ids", "inputs_embeds", "token_type_ids", "position_ids")
    return batch | {key: batch[key][rows, source] for key in keys if batch.get(key) is not None}


class VividMedGenerationMixin(GenerationMixin):
    """How ``generate`` handles ragged images, padding and positions.

    The position of a new token depends on the tokens before it, which the library's counters do not know. So the
    prompt's positions are kept as they are (``prompt_position_ids``) and extended anew for every step.
    """

    def generate(self, inputs: torch.Tensor | None = None, generation_config: Any = None, **kwargs: Any):
        """Generate from a processor's batch, padded on either side.

        Works as :meth:`transformers.GenerationMixin.generate` does; the returned sequences are left-padded. Entries
        of the batch that only grounding uses are ignored.

        Raises:
            VividMedError: a row contains several samples, a token id is not in the vocabulary, the assistant is not
                a VividMed model, or ``prefill_chunk_size`` would split images.
        """
        if inputs is not None:
            kwargs["input_ids"] = inputs
        cache = single_cache(*(kwargs.pop(name, None) for name in CACHE_NAMES))
        if cache is not None:
            kwargs |= as_cache_argument(cache)
        for name in ("geometry", "grounding_values"):
            kwargs.pop(name, None)
        images = kwargs.get("pixel_values")
        if isinstance(images, list) and any(isinstance(image, list | tuple) for image in images):
            # Pipelines collate the images of each sample into a list of their own.
            kwargs["pixel_values"] = [image for sample in images for image in sample]
        self._check_generation(generation_config, kwargs)
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2 and not bool(mask[:, -1].all()):
            kwargs = pad_left(kwargs)
        if kwargs.get("position_ids") is not None:
            kwargs["prompt_position_ids"] = kwargs.pop("position_ids")
        assistant, images = kwargs.get("assistant_model"), kwargs.get("pixel_values")
        if assistant is not None and images is not None and len(images):
            with torch.no_grad():
                encoded = assistant.get_image_features(images, kwargs["patch_sizes"], kwargs["pool_sizes"])
            kwargs["assistant_encoder_outputs"] = {"image": encoded}
        return super().generate(generation_config=generation_config, **kwargs)

    def _check_generation(self, generation_config: Any, inputs: dict[str, Any]) -> None:
        input_ids = inputs.get("input_ids")
        if input_ids is not None:
            if inputs.get("token_type_ids") is not None and inputs["token_type_ids"].shape == input_ids.shape:
                input_ids = input_ids.masked_fill(inputs["token_type_ids"] > 0, 0)
            check_token_ids(input_ids, self.config.text_config.vocab_size)
            positions = inputs.get("position_ids")
            mask = inputs.get("attention_mask")
            mask = mask if mask is not None and mask.shape == input_ids.shape else None
            if positions is not None and positions.shape[-1] != input_ids.shape[1]:
                positions = None
            if is_packed(number_samples(mask, positions, tuple(input_ids.shape))):
                raise VividMedError(
                    "generate takes one sample per row: pass packed samples in rows of their own"
                )
        assistant = inputs.get("assistant_model")
        if assistant is not None and getattr(assistant.config, "model_type", None) != self.config.model_type:
            raise VividMedError(
                f"assistant_model is a {type(assistant).__name__}: give a VividMed model, which reads the same "
                "images and positions, or use prompt_lookup_num_tokens"
            )
        if assistant is not None and inputs.get("mm_encoder_outputs"):
            raise VividMedError(
                "mm_encoder_outputs come from this model, but assistant_model encodes images itself: pass pixel_values"
            )
        chunk = inputs.get("prefill_chunk_size", getattr(generation_config, "prefill_chunk_size", None))
        has_images = any(
            inputs.get(name) is not None and len(inputs[name])
            for name in ("pixel_values", "mm_encoder_outputs")
        )
        if chunk is not None and has_images:
            raise VividMedError(
                "prefill_chunk_size cannot split a prompt with images, whose tokens belong together: leave it out"
            )

    def _get_candidate_generator(self, *args: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
        """The library's, with the images as the assistant encodes them instead of this model's encoding."""
        encoded = model_kwargs.get("assistant_encoder_outputs")
        if encoded is not None:
            model_kwargs = model_kwargs | {"mm_encoder_outputs": encoded}
        return super()._get_candidate_generator(*args, model_kwargs=model_kwargs, **kwargs)

    def create_masks_for_generate(self, config: Any, **arguments: Any) -> Any:
        """The causal mask of a step with a compilable cache, for the implementation that the decoder uses.

        A decoder whose layers differ in what they see makes its masks itself.
        """
        if self.config.text_config.attention_window is not None:
            return arguments.get("attention_mask")
        if arguments["inputs_embeds"].shape[1] == 1 and self.config._attn_implementation == "sdpa":
            mask = _mask_of_new_token(
                arguments["inputs_embeds"], arguments.get("attention_mask"), arguments.get(CACHE_NAME)
            )
            if mask is not None:
                return mask
        names = ("inputs_embeds", "attention_mask", "position_ids", *CACHE_NAMES)
        return create_causal_mask(
            config=self.config, **{name: arguments[name] for name in names if name in arguments}
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prompt_position_ids: torch.Tensor | None = None,
        assistant_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        written_states: WrittenStates | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        cache = kwargs.get(CACHE_NAME)
        decoding = cache is not None and not is_first_iteration and kwargs.get("next_sequence_length") == 1
        if decoding:
            kwargs["token_type_ids"] = None  # new tokens are text
        if prompt_position_ids is not None:
            is_chunk = input_ids.shape[1] < prompt_position_ids.shape[1]
            seen = int(cache.get_seq_length()) if is_chunk and cache is not None else 0
            position_ids = self._positions(prompt_position_ids, input_ids, inputs_embeds, seen, last=decoding)
        if not is_first_iteration and cache is not None and kwargs.get("mm_encoder_outputs"):
            # An assistant starts with a prefill as well, which the library does not count as a first iteration.
            is_first_iteration = int(cache.get_seq_length()) == 0
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if is_first_iteration and attention_mask is not None:
            # The prompt's padding must stay visible, also where a static cache had a 4D mask made of it.
            model_inputs["attention_mask"] = attention_mask
        if written_states is not None:
            model_inputs["output_last_state"] = True
        return model_inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        if model_kwargs.get("written_states") is not None:
            model_kwargs["written_states"].add(outputs)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _positions(
        self,
        prompt: torch.Tensor,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None,
        seen: int,
        *,
        last: bool,
    ) -> torch.Tensor:
        """Positions (B, L) of all tokens so far, or (B, 1) of the last one.

        Args:
            prompt: (B, P) positions of the prompt.
            input_ids: (B, L).
            inputs_embeds: (B, P, C) of the prompt, if it was given as embeddings.
            seen: number of tokens of the prompt before its present chunk.
            last: return the last position only.
        """
        length = prompt.shape[1]
        if inputs_embeds is not None and input_ids.shape[1] < length:
            # The ids are those of new tokens only; what the prompt ends with is unknown, and taken to be a word.
            unknown = input_ids.new_full((len(input_ids), length), -1)
            input_ids = torch.cat([unknown, input_ids], dim=1)
        if input_ids.shape[1] <= length:
            return prompt[:, seen : seen + input_ids.shape[1]]
        markers = self.config.phrase_start_token_id, self.config.phrase_end_token_id
        if last:
            return prompt[:, -1:] + _advances(input_ids, length, *markers).sum(1, keepdim=True)
        return extend_position_ids(prompt, input_ids, *markers)

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
