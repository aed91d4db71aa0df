"""Grounded generation: the text that the model writes, and where in the image each of its phrases is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch

from vividmed.errors import VividMedError
from vividmed.models.generation import VividMedGenerationMixin, extend_position_ids, pad_left
from vividmed.models.layout import TokenInfo
from vividmed.models.phrases.forms import (
    BOX_FORMS,
    MASK_FORMS,
    FormLookup,
    PhraseForm,
    default_form,
    phrase_numbers,
    usable_form,
)
from vividmed.models.phrases.forms import find_form as find_recorded_form
from vividmed.models.phrases.grounding import GroundingOutput, PhraseBatch, SampleIndex
from vividmed.models.phrases.segmentation import PhraseSegmentation
from vividmed.models.phrases.written_states import WrittenStates

GroundingMode = Literal["auto", "mask", "box", "both", "off"]


class GroundingProcessor(Protocol):
    """Turns token ids and tensors on the model's grid into texts, masks and boxes on the original grid."""

    def post_process_text(self, sequences: Sequence[torch.Tensor]) -> list[Any]: ...

    def post_process_grounding(self, sequences: Sequence[torch.Tensor], **kwargs: Any) -> list[Any]: ...


@dataclass(frozen=True, eq=False)
class WrittenText:
    """What the model wrote, before it is decoded.

    Attributes:
        ids: for each sample (T,) int64, the new tokens before the end of sequence.
        texts: for each sample the parsed text.
        forms: for each sample the form of each of its phrases, counted by ``</p>``.
        output: where the phrases are; None without grounding.
    """

    ids: list[torch.Tensor]
    texts: list[Any]
    forms: list[list[PhraseForm]]
    output: GroundingOutput | None


class GroundedGenerationMixin(VividMedGenerationMixin):
    """The grounding side of :class:`~vividmed.models.modeling_vividmed.VividMedForCausalLM`."""

    def ground(
        self,
        input_ids: torch.Tensor,
        grounding_values: Sequence[torch.Tensor],
        patch_sizes: torch.Tensor,
        *,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        masks: bool = True,
        boxes: bool = True,
        forms: Sequence[Sequence[PhraseForm]] | None = None,
        **inputs: Any,
    ) -> GroundingOutput:
        """Find where the phrases of given texts are.

        Args:
            input_ids: (B, L), texts with ``<p>`` and ``</p>``.
            grounding_values: the images of the batch, each (3, D, H, W) in [0, 1], in the order of ``pixel_values``.
            patch_sizes: (images, 3).
            attention_mask: (B, L).
            token_type_ids: (B, L).
            masks: draw masks, if the model has a segmenter.
            boxes: find boxes, if the model has an instance segmenter.
            forms: for each sample the form of each of its phrases, which says which segmenter is asked for it; by
                default both are.
            **inputs: the other inputs of the model, such as ``pixel_values`` and ``position_ids``.

        Returns:
            Logits and boxes for each phrase of each sample; a sample without an image has none. Where a segmenter was
            not asked, logits are ``-inf``.

        Raises:
            VividMedError: the model has no segmenter, or the images do not fit the text.
        """
        phrases = self._phrases_of_text(
            input_ids, grounding_values, patch_sizes, attention_mask, token_type_ids, inputs
        )
        wanted = forms or [["both"] * len(prompts) for prompts in phrases.prompts]
        return self._segment(phrases, wanted, masks=masks, boxes=boxes)

    def _phrases_of_text(
        self,
        input_ids: torch.Tensor,
        grounding_values: Sequence[torch.Tensor] | None,
        patch_sizes: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        inputs: dict[str, Any],
    ) -> PhraseBatch:
        """The phrases of whole texts, which the decoder reads for this."""
        if self.grounding_projection is None:
            raise VividMedError(
                "this model has no segmenters and cannot ground: load one that was trained with grounding, "
                "or pass grounding='off'"
            )
        hidden_states = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            patch_sizes=patch_sizes,
            use_cache=False,
            **inputs,
        ).last_hidden_state
        tokens = TokenInfo(attention_mask, inputs.get("position_ids"), token_type_ids)
        return self.phrases(hidden_states, input_ids, tokens, grounding_values, patch_sizes)

    def _segment(
        self,
        phrases: PhraseBatch,
        forms: Sequence[Sequence[PhraseForm]],
        *,
        masks: bool = True,
        boxes: bool = True,
        mask_threshold: float = 0.5,
        score_threshold: float = 0.5,
    ) -> GroundingOutput:
        """Ask each segmenter for the phrases whose form needs it, then the other one where that found nothing."""
        found = PhraseSegmentation(
            phrases, self.segmenter if masks else None, self.instance_segmenter if boxes else None
        )
        with torch.autocast(self.device.type, enabled=False):
            found.draw([phrase_numbers(sample, MASK_FORMS) for sample in forms])
            found.box([phrase_numbers(sample, BOX_FORMS) for sample in forms])
            # What a calibrated score says is absent is not looked for in the other form.
            calibrated = self.config.presence_thresholds or {}
            if "mask" not in calibrated:
                found.box(found.missed(forms, "mask first", mask_threshold))
            if "box" not in calibrated:
                found.draw(found.missed(forms, "box first", score_threshold))
        return found.output()

    @torch.no_grad()
    def generate_grounded(
        self,
        *,
        processor: GroundingProcessor,
        grounding: GroundingMode = "auto",
        mask_threshold: float = 0.5,
        score_threshold: float = 0.5,
        find_form: FormLookup | None = None,
        **inputs: Any,
    ) -> list[Any]:
        """Generate texts and find where their phrases are.

        The states that write ``</p>`` are kept while writing, so that finding the phrases costs the segmenters only.
        Beam search and assisted generation choose tokens in another order; the text is then read once more.

        Args:
            processor: the ``VividMedProcessor`` that made the inputs.
            grounding: ``"mask"``, ``"box"`` or ``"both"`` for every phrase. ``"auto"`` shows each phrase in the form
                that its target had in training, where ``config.target_forms`` records one. Otherwise, and for targets
                with both forms, it follows the published weights: a phrase of a volume gets its mask, or its boxes if
                the mask is empty; a phrase of a 2D image gets its boxes, or its mask if no box reaches
                ``score_threshold``. ``"off"`` only writes.
            mask_threshold: least probability of a voxel that belongs to a mask.
            score_threshold: least score of a box that is returned.
            find_form: how to find the form of a phrase in training; by default by the names of recorded targets.
            **inputs: a batch of the processor, made with ``grounding=True``, and arguments of ``generate``.

        Returns:
            A ``GroundedText`` for each sample; masks and boxes on the grid of its image as it was read.

        Raises:
            VividMedError: several sequences per sample are asked for, the inputs have no ``grounding_values``, or the
                model lacks the segmenter that is asked for.
        """
        geometry = inputs.get("geometry")
        written = self.write_grounded(
            processor=processor,
            grounding=grounding,
            mask_threshold=mask_threshold,
            score_threshold=score_threshold,
            find_form=find_form,
            **inputs,
        )
        return processor.post_process_grounding(
            written.ids,
            output=written.output,
            first_prompts=[0] * len(written.ids),
            geometry=self._first_geometry(geometry, inputs),
            forms=written.forms,
            presence_thresholds=self.config.presence_thresholds,
            mask_threshold=mask_threshold,
            score_threshold=score_threshold,
        )

    @torch.no_grad()
    def write_grounded(
        self,
        *,
        processor: GroundingProcessor,
        grounding: GroundingMode = "auto",
        mask_threshold: float = 0.5,
        score_threshold: float = 0.5,
        find_form: FormLookup | None = None,
        **inputs: Any,
    ) -> WrittenText:
        """Generate texts and find their phrases on the model's grid; see :meth:`generate_grounded`."""
        geometry = inputs.pop("geometry", None)
        grounding_values = inputs.pop("grounding_values", None)
        self._check_grounding(grounding, grounding_values, geometry, inputs)
        mask = inputs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            inputs = pad_left(inputs)
        looks = grounding != "off" and bool(grounding_values)
        states = WrittenStates()
        if looks:
            inputs["written_states"] = states
        sequences = self.generate(**inputs)
        prompt_length = inputs["input_ids"].shape[1]
        written = self._written(sequences, prompt_length)
        ids = [row[prompt_length:][kept] for row, kept in zip(sequences, written, strict=True)]
        texts = processor.post_process_text(ids)
        if not looks:
            return WrittenText(ids, texts, [[] for _ in ids], None)
        plans = self._first_geometry(geometry, inputs)
        forms = [
            self._forms(text, int((row == self.config.phrase_end_token_id).sum()), plan, grounding, find_form)
            for text, row, plan in zip(texts, ids, plans, strict=True)
        ]
        new = sequences[:, prompt_length:]
        kept_states = states.of_tokens(*new.shape)
        if kept_states is None:
            phrases = self._phrases_of_new_tokens(inputs, sequences, written, grounding_values)
        else:
            phrases = self._phrases_of_states(inputs, kept_states, new, written, grounding_values)
        output = self._segment(phrases, forms, mask_threshold=mask_threshold, score_threshold=score_threshold)
        return WrittenText(ids, texts, forms, output)

    def _forms(
        self, text: Any, count: int, plan: Any, grounding: GroundingMode, find_form: FormLookup | None
    ) -> list[PhraseForm]:
        """The form of each ``</p>`` of a text; none where it closes no phrase or there is no image."""
        forms: list[PhraseForm] = ["none"] * count
        if plan is None:
            return forms
        recorded = self.config.target_forms or {}
        for phrase in text.phrases:
            form: Any = grounding
            if grounding == "auto":
                form = find_form(phrase.text) if find_form else find_recorded_form(recorded, phrase.text)
                if form in (None, "both"):
                    form = default_form(plan.original_size[0] > 1)
            forms[phrase.prompt_index] = usable_form(
                form,
                has_masks=self.segmenter is not None,
                has_boxes=self.instance_segmenter is not None,
            )
        return forms

    def _phrases_of_states(
        self,
        inputs: dict[str, Any],
        states: torch.Tensor,
        new: torch.Tensor,
        written: torch.Tensor,
        grounding_values: Sequence[torch.Tensor],
    ) -> PhraseBatch:
        """The phrases of new tokens (B, T) from the states (B, T, C) that they were chosen from."""
        samples = SampleIndex.build(inputs["input_ids"], inputs.get("attention_mask"))
        ends = (new == self.config.phrase_end_token_id) & written
        of_samples = [row[at] for row, at in zip(states.to(self.device), ends, strict=True)]
        return PhraseBatch.from_states(
            of_samples,
            samples,
            token_type_ids=inputs.get("token_type_ids"),
            images=grounding_values,
            patch_sizes=inputs.get("patch_sizes"),
            projection=self.grounding_projection,
        )

    def _phrases_of_new_tokens(
        self,
        inputs: dict[str, Any],
        sequences: torch.Tensor,
        written: torch.Tensor,
        grounding_values: Sequence[torch.Tensor],
    ) -> PhraseBatch:
        """The same by reading prompt and new tokens again, without the phrases of the prompt."""
        batch = self._continued(inputs, sequences, written)
        names = ("input_ids", "patch_sizes", "attention_mask", "token_type_ids")
        given = {name: batch.pop(name, None) for name in names}
        phrases = self._phrases_of_text(
            given["input_ids"],
            grounding_values,
            given["patch_sizes"],
            given["attention_mask"],
            given["token_type_ids"],
            batch,
        )
        before = (inputs["input_ids"] == self.config.phrase_end_token_id).sum(1).tolist()
        prompts = [prompt[number:] for prompt, number in zip(phrases.prompts, before, strict=True)]
        return replace(phrases, prompts=prompts)

    def _check_grounding(
        self, grounding: str, grounding_values: Any, geometry: Any, inputs: dict[str, Any]
    ) -> None:
        modes = ("auto", "mask", "box", "both", "off")
        if grounding not in modes:
            raise VividMedError(f"grounding={grounding!r} is unknown: choose one of {', '.join(modes)}")
        needed = {
            "mask": ("segmenter",),
            "box": ("instance_segmenter",),
            "both": ("segmenter", "instance_segmenter"),
        }
        for name in needed.get(grounding, ()):
            if getattr(self, name) is None:
                raise VividMedError(
                    f"grounding={grounding!r} needs a model with {name}_config; this one has none"
                )
        if grounding != "off" and inputs.get("pixel_values") and (not grounding_values or geometry is None):
            raise VividMedError(
                "the inputs have no grounding_values: call the processor with grounding=True, "
                "or pass grounding='off'"
            )
        for name in ("num_return_sequences", "return_dict_in_generate"):
            if inputs.get(name) not in (None, False, 1):
                raise VividMedError(f"generate_grounded returns one text per sample: leave {name} out")

    def _written(self, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
        """(B, new tokens) bool: the tokens before the end of sequence."""
        new = sequences[:, prompt_length:]
        ends = self.generation_config.eos_token_id
        if ends is None:
            return torch.ones_like(new, dtype=torch.bool)
        ends = torch.as_tensor(ends, device=new.device).view(-1)
        return torch.isin(new, ends).cumsum(1) == 0

    def _continued(
        self, inputs: dict[str, Any], sequences: torch.Tensor, written: torch.Tensor
    ) -> dict[str, Any]:
        """The inputs followed by the generated tokens."""
        names = ("token_type_ids", "pixel_values", "patch_sizes", "pool_sizes")
        batch = {name: inputs[name] for name in names if inputs.get(name) is not None}
        if "token_type_ids" in batch:
            batch["token_type_ids"] = torch.cat(
                [batch["token_type_ids"], torch.zeros_like(sequences[:, -written.shape[1] :])], 1
            )
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones_like(inputs["input_ids"])
        batch["attention_mask"] = torch.cat([mask, written.to(mask.dtype)], dim=1)
        batch["input_ids"] = sequences
        if inputs.get("position_ids") is not None:
            batch["position_ids"] = extend_position_ids(
                inputs["position_ids"],
                sequences,
                self.config.phrase_start_token_id,
                self.config.phrase_end_token_id,
            )
        return batch

    def _first_geometry(self, geometry: Sequence[Any] | None, inputs: dict[str, Any]) -> list[Any]:
        samples = SampleIndex.build(inputs["input_ids"], inputs.get("attention_mask"))
        first = samples.first_images(inputs.get("token_type_ids"))
        return [None if image is None or geometry is None else geometry[image] for image in first]
