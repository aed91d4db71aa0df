"""Grounded generation: the text that the model writes, and where in the image each of its phrases is."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from vividmed.errors import VividMedError
from vividmed.models.generation import VividMedGenerationMixin, extend_position_ids, pad_left
from vividmed.models.grounding import GroundingOutput, SampleIndex
from vividmed.models.layout import TokenInfo

GroundingMode = Literal["auto", "mask", "box", "both", "off"]


class GroundingProcessor(Protocol):
    """Turns token ids and tensors on the model's grid into texts, masks and boxes on the original grid."""

    def post_process_grounding(self, sequences: Sequence[torch.Tensor], **kwargs: Any) -> list[Any]: ...


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
            **inputs: the other inputs of the model, such as ``pixel_values`` and ``position_ids``.

        Returns:
            Logits and boxes for each phrase of each sample; a sample without an image has none.

        Raises:
            VividMedError: the model has no segmenter, or the images do not fit the text.
        """
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
        phrases = self.phrases(hidden_states, input_ids, tokens, grounding_values, patch_sizes)

        def by_sample(values: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
            found = dict(zip(phrases.seen, values, strict=True))
            return [found.get(sample) for sample in range(len(phrases.prompts))]

        arguments = phrases.segmenter_inputs()
        output = GroundingOutput(prompts=by_sample(arguments[1]))
        with torch.autocast(self.device.type, enabled=False):
            if masks and self.segmenter is not None:
                output.masks = by_sample(self.segmenter(*arguments).masks)
            if boxes and self.instance_segmenter is not None:
                instances = self.instance_segmenter(*arguments)
                output.boxes = by_sample(instances.boxes)
                output.box_logits = by_sample(instances.logits)
        return output

    @torch.no_grad()
    def generate_grounded(
        self,
        *,
        processor: GroundingProcessor,
        grounding: GroundingMode = "auto",
        mask_threshold: float = 0.5,
        score_threshold: float = 0.5,
        **inputs: Any,
    ) -> list[Any]:
        """Generate texts and find where their phrases are.

        Args:
            processor: the ``VividMedProcessor`` that made the inputs.
            grounding: ``"mask"``, ``"box"`` or ``"both"`` for every phrase. ``"auto"`` follows the training of the
                published weights: a phrase of a volume gets its mask, or its boxes if the mask is empty; a phrase of
                a 2D image gets its boxes, or its mask if no box reaches ``score_threshold``. ``"off"`` only writes.
            mask_threshold: least probability of a voxel that belongs to a mask.
            score_threshold: least score of a box that is returned.
            **inputs: a batch of the processor, made with ``grounding=True``, and arguments of ``generate``.

        Returns:
            A ``GroundedText`` for each sample; masks and boxes on the grid of its image as it was read.

        Raises:
            VividMedError: several sequences per sample are asked for, the inputs have no ``grounding_values``, or the
                model lacks the segmenter that is asked for.
        """
        geometry = inputs.pop("geometry", None)
        grounding_values = inputs.pop("grounding_values", None)
        self._check_grounding(grounding, grounding_values, geometry, inputs)
        mask = inputs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            inputs = pad_left(inputs)
        sequences = self.generate(**inputs)
        prompt_length = inputs["input_ids"].shape[1]
        written = self._written(sequences, prompt_length)
        output = None
        if grounding != "off" and grounding_values:
            output = self.ground(
                grounding_values=grounding_values,
                masks=grounding != "box",
                boxes=grounding != "mask",
                **self._continued(inputs, sequences, written),
            )
        prompts_before = (inputs["input_ids"] == self.config.phrase_end_token_id).sum(1).tolist()
        return processor.post_process_grounding(
            [row[prompt_length:][kept] for row, kept in zip(sequences, written, strict=True)],
            output=output,
            first_prompts=prompts_before,
            geometry=self._first_geometry(geometry, inputs),
            exclusive=grounding == "auto",
            mask_threshold=mask_threshold,
            score_threshold=score_threshold,
        )

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
