"""Turn images and conversations into the batch that the model takes, and token ids into text with phrases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin
from transformers.utils import TensorType, logging

from vividmed.errors import VividMedError
from vividmed.processing.call_options import call_options
from vividmed.processing.chat import Truncation, encode_chat
from vividmed.processing.file_errors import BROKEN_FILE, first_line
from vividmed.processing.geometry import RandomGenerator, triple
from vividmed.processing.grounded_text import GroundedText, ParsedText, parse_grounded_ids
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.messages import plain_messages, turns_from_messages
from vividmed.processing.orientation import canonical_axes
from vividmed.processing.padding import pad_chats, padded_length
from vividmed.processing.postprocessing import place_phrases
from vividmed.processing.samples import Messages, SampleImages, name_sample, sample_images, split_samples
from vividmed.processing.special_tokens import SpecialTokenIds, special_token_ids
from vividmed.processing.tokenizer import load_tiny_tokenizer
from vividmed.triples import Triple

logger = logging.get_logger(__name__)

_CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_TEMPLATE_ERRORS: tuple[type[Exception], ...] = (jinja2.TemplateError, *BROKEN_FILE)
_TRUNCATION: dict[Any, Truncation] = {
    None: "error",
    False: "error",
    "do_not_truncate": "error",
    "error": "error",
    True: "answer",
    "longest_first": "answer",
    "answer": "answer",
}


class VividMedProcessor(ProcessorMixin):
    """Turns a user's images and messages into the model's inputs.

    Args:
        image_processor: prepares the images.
        tokenizer: tokenizer of the language model with VividMed's special tokens.
        chat_template: Jinja template of the text; None takes VividMed's.
        phrase_start_weight: loss weight of positions whose next token opens a phrase; published as 5.
    """

    # Lists over images of different sizes, and objects.
    skip_tensor_conversion = ["pixel_values", "grounding_values", "geometry"]  # noqa: RUF012

    def __init__(
        self,
        image_processor: VividMedImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        phrase_start_weight: float = 5.0,
    ):
        if tokenizer is None:
            raise VividMedError("processor: the tokenizer is missing; give one with the special tokens")
        super().__init__(
            image_processor,
            tokenizer,
            chat_template=chat_template or _CHAT_TEMPLATE.read_text(encoding="utf-8"),
        )
        self.phrase_start_weight = phrase_start_weight
        self.special_token_ids: SpecialTokenIds = special_token_ids(tokenizer)

    @classmethod
    def tiny(cls) -> "VividMedProcessor":
        """Build the processor of ``VividMedConfig.tiny()``: small patches, a small budget, the packaged tokenizer."""
        image_processor = VividMedImageProcessor(
            patch_size=(4, 16, 16), max_image_tokens=36, max_slice_tokens=4
        )
        return cls(image_processor, load_tiny_tokenizer())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a processor as :meth:`transformers.ProcessorMixin.from_pretrained` does.

        Raises:
            VividMedError: its files are missing, damaged, or contain values that it cannot work with.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except VividMedError:
            raise
        except BROKEN_FILE as error:
            raise VividMedError(
                f"{pretrained_model_name_or_path}: not a readable processor ({first_line(error)}); save it there with "
                "VividMedProcessor.save_pretrained"
            ) from error

    @property
    def model_input_names(self) -> list[str]:
        """Keys of an inference batch that the model takes."""
        return [
            "input_ids",
            "token_type_ids",
            "position_ids",
            "attention_mask",
            *self.image_processor.model_input_names,
        ]

    def __call__(
        self,
        images: SampleImages | Sequence[SampleImages] = None,
        text: str | Sequence[str] | None = None,
        conversations: Messages | Sequence[Messages] | None = None,
        *,
        grounding: bool = False,
        independent_turns: bool = False,
        padding: bool | str | None = True,
        padding_side: Literal["left", "right"] | None = None,
        pad_to_multiple_of: int | None = None,
        max_length: int | None = None,
        truncation: Truncation | bool | str | None = "error",
        return_tensors: str | TensorType | None = "pt",
        generator: RandomGenerator | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Build a batch.

        Args:
            images: for one sample, an image or a list of images; for a batch, such an entry (or None) per sample. None
                takes the images that the messages carry (``{"type": "image", "path": ...}``). Types: see
                :func:`vividmed.processing.reading.read_image`.
            text: a question, or one per sample; short for a conversation of one user message.
            conversations: messages of one sample, or a list of such lists; mappings, dataclasses or pydantic objects.
                Conversations that end with the assistant are for training, those that end with the user for
                generation; a batch contains one kind. If no message mentions an image, the images belong to the first
                question.
            grounding: ask for grounded text, and give ``grounding_values``.
            independent_turns: for training: each turn sees the images and itself only, as if it were a conversation of
                its own. The batch then contains ``turn_ids``.
            padding: True or ``"longest"`` pads to the longest sample, ``"max_length"`` to ``max_length``; False or
                ``"do_not_pad"`` needs samples of one length.
            padding_side: None pads on the right for training and on the left for generation.
            pad_to_multiple_of: round the padded length up to a multiple of this number.
            max_length: largest number of positions per sample, images included; None sets no limit.
            truncation: ``"error"`` (or False) refuses longer samples; ``"answer"`` (or True) cuts the end of the answers
                and warns.
            return_tensors: ``"pt"``, or None for lists of numbers in place of the (B, L) tensors.
            generator: jitters the patch depth of volumes, for training.
            **kwargs: settings of the image processor for this call only, such as ``window``; and ``text_kwargs``,
                ``images_kwargs`` and ``common_kwargs``, mappings of all these arguments, as the processors of
                transformers take them.

        Returns:
            ``input_ids``, ``token_type_ids``, ``position_ids``, ``attention_mask``: (B, L) int64; ``pixel_values``
            (and ``grounding_values``): list over all images of the batch of (3, D, H, W); ``patch_sizes``,
            ``pool_sizes``: (num_images, 3); with ``independent_turns``, ``turn_ids`` (B, L) int64, 0 before the first
            turn and at padding, else the number of the token's turn; ``geometry``: list of ``ResizePlan``; for training ``labels`` (B, L)
            int64, already shifted, -100 ignored, and ``label_weights`` (B, L) float32.

        Raises:
            VividMedError: an argument is unknown or given twice, bad conversation or image, another number of images than mentioned, or a
                sample that is too long.
        """
        arguments: dict[str, Any] = {
            "grounding": grounding,
            "independent_turns": independent_turns,
            "padding": padding,
            "padding_side": padding_side,
            "pad_to_multiple_of": pad_to_multiple_of,
            "max_length": max_length,
            "truncation": truncation,
            "return_tensors": return_tensors,
            "generator": generator,
        }
        settings: dict[str, Any] = {}
        if kwargs:
            arguments, settings = call_options(
                arguments,
                kwargs,
                defaults=VividMedProcessor.__call__.__kwdefaults__ or {},
                settings=self.image_processor.settings,
            )
        return self._batch(images, text, conversations, image_settings=settings, **arguments)

    def _batch(
        self,
        images: SampleImages | Sequence[SampleImages],
        text: str | Sequence[str] | None,
        conversations: Messages | Sequence[Messages] | None,
        *,
        image_settings: Mapping[str, Any],
        grounding: bool,
        independent_turns: bool,
        padding: bool | str | None,
        padding_side: Literal["left", "right"] | None,
        pad_to_multiple_of: int | None,
        max_length: int | None,
        truncation: Truncation | bool | str | None,
        return_tensors: str | TensorType | None,
        generator: RandomGenerator | None,
    ) -> BatchFeature:
        if return_tensors not in ("pt", None):
            raise VividMedError(f"return_tensors={return_tensors!r} is not supported; use 'pt'")
        length = padded_length(padding, max_length)
        limit = _TRUNCATION.get(truncation if isinstance(truncation, str | bool | None) else "")
        if limit is None:
            raise VividMedError(f"truncation={truncation!r} is not supported; use 'error' or 'answer'")
        batch, batched = split_samples(text, conversations)
        turns = [
            name_sample(index, turns_from_messages, conversation, grounding=bool(grounding))
            for index, conversation in enumerate(batch)
        ]
        per_sample = sample_images(images, batch, batched=batched)
        features = self.image_processor(
            [image for sample in per_sample for image in sample],
            grounding=grounding,
            generator=generator,
            **image_settings,
        )
        tokens = iter([plan.num_patch_tokens for plan in features["geometry"]])
        encoded = [
            name_sample(
                index,
                encode_chat,
                sample_turns,
                [next(tokens) for _ in sample],
                self.tokenizer,
                self.special_token_ids,
                grounding=grounding,
                independent_turns=independent_turns,
                phrase_start_weight=self.phrase_start_weight,
                max_length=max_length,
                truncation=limit,
            )
            for index, (sample_turns, sample) in enumerate(zip(turns, per_sample, strict=True))
        ]
        for index, sample_chat in enumerate(encoded):
            if cut := sample_chat.dropped_answer_tokens:
                logger.warning(
                    f"sample {index}: {cut} answer tokens were cut to keep max_length={max_length}"
                )
        if independent_turns and any(chat.labels is None for chat in encoded):
            raise VividMedError(
                "independent_turns: a conversation ends with a question; it is for training, where each has its answer"
            )
        columns = pad_chats(
            encoded, side=padding_side, length=length, multiple=pad_to_multiple_of, turns=independent_turns
        )
        rows = {name: torch.tensor(row) if return_tensors == "pt" else row for name, row in columns.items()}
        return BatchFeature({**rows, **features}, skip_tensor_conversion=self.skip_tensor_conversion)

    def apply_chat_template(
        self,
        conversation: Messages | Sequence[Messages],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        grounding: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render the text of a conversation, or build its batch.

        The text shows the layout without its images, which take no text. ``tokenize=True`` calls the processor on the
        conversation and returns the batch if ``return_dict=True``, else its ``input_ids``.

        Args:
            conversation: messages of one sample, or a list of such lists.
            chat_template: another template for the text; the layout of a batch is fixed.
            tokenize: build a batch.
            return_dict: return the whole batch.
            grounding: ask for grounded text.
            processor_kwargs: arguments of the processor's call, with ``tokenize=True``.
            **kwargs: arguments of the processor's call with ``tokenize=True``, else of the template.

        Raises:
            VividMedError: a bad conversation, template or argument.
        """
        options = dict(processor_kwargs or {})
        grounding = options.pop("grounding", grounding)
        conversation = plain_messages(conversation)
        batch, _ = split_samples(None, conversation)
        for index, messages in enumerate(batch):
            name_sample(index, turns_from_messages, messages, grounding=bool(grounding))
        if not tokenize:
            try:
                return super().apply_chat_template(conversation, chat_template, grounding=grounding, **kwargs)
            except _TEMPLATE_ERRORS as error:
                raise VividMedError(
                    f"chat template: {first_line(error)}; correct the template or its arguments"
                ) from error
        if chat_template is not None and chat_template != self.chat_template:
            raise VividMedError(
                "chat_template: the layout of a batch is fixed; use tokenize=False for another text"
            )
        options |= kwargs
        if options.pop("continue_final_message", False):
            raise VividMedError(
                "a given beginning of an answer cannot be continued; end the conversation with the user"
            )
        # A question is always followed by the hand-over to the model: there is nothing to add or to leave out.
        options.pop("add_generation_prompt", None)
        for name in ("tools", "documents", "return_assistant_tokens_mask", "load_audio_from_video"):
            if options.pop(name, None):
                raise VividMedError(f"{name} is not supported; leave it out")
        inputs = self(conversations=conversation, grounding=grounding, **options)
        return inputs if return_dict else inputs["input_ids"]

    def num_image_tokens(self, size: Triple, affine: np.ndarray | None = None) -> int:
        """Count the positions that an image takes in the sequence, from its shape; for length-aware batching.

        Args:
            size: (D, H, W) as read; D = 1 for a 2D image.
            affine: of an oriented volume, 4 x 4, voxel index (x, y, z) -> RAS+ mm; None for 2D images and arrays.
        """
        if affine is not None:
            size = triple(size[axis] for axis in canonical_axes(size, affine)[0])
        return self.image_processor.count_tokens(size) + 2

    def post_process_text(
        self, sequences: torch.Tensor | Sequence[Sequence[int]], *, prompt_length: int = 0
    ) -> list[ParsedText]:
        """Decode generated ids into clean text and phrases, one result per sequence.

        Args:
            sequences: (B, L) ids that ``generate`` returned.
            prompt_length: number of leading positions that are prompt, ``inputs["input_ids"].shape[1]``.
        """
        return [parse_grounded_ids(list(ids)[prompt_length:], self.tokenizer) for ids in sequences]

    def post_process_grounding(self, sequences: Sequence[torch.Tensor], **options: Any) -> list[GroundedText]:
        """Decode ids, and carry the masks and boxes of their phrases to the original grid.

        Args:
            sequences: per sample, the ids of its text without the prompt.
            **options: see :func:`vividmed.processing.postprocessing.place_phrases`.
        """
        texts = [parse_grounded_ids(ids.tolist(), self.tokenizer) for ids in sequences]
        return place_phrases(texts, **options)
