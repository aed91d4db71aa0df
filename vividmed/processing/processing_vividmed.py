"""Images and conversations -> the batch that the model takes, and token ids -> text with phrases."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.processing.chat import IGNORE, EncodedChat, Truncation, encode_chat
from vividmed.processing.geometry import RandomGenerator
from vividmed.processing.grounded_text import GroundedText, ParsedText, parse_grounded_ids
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.messages import Message, attached_image, image_items, turns_from_messages
from vividmed.processing.postprocessing import place_phrases
from vividmed.processing.reading import ImageSource, as_list
from vividmed.processing.special_tokens import SpecialTokenIds, special_token_ids
from vividmed.processing.tokenizer import load_tiny_tokenizer
from vividmed.triples import Triple

logger = logging.get_logger(__name__)

Messages = Sequence[Message]
SampleImages = ImageSource | Sequence[ImageSource] | None

_Result = TypeVar("_Result")
_CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_PADDING: dict[str, float] = {
    "input_ids": 0,
    "token_type_ids": 0,
    "position_ids": 0,
    "attention_mask": 0,
    "labels": IGNORE,
    "label_weights": 0.0,
}


class VividMedProcessor(ProcessorMixin):
    """One object from a user's images and messages to the model's inputs.

    Args:
        image_processor: prepares the images.
        tokenizer: Llama (SentencePiece) tokenizer with VividMed's special tokens.
        chat_template: Jinja template of the text; None takes VividMed's.
        phrase_start_weight: loss weight of positions whose next token opens a phrase; 5 as published.
    """

    def __init__(
        self,
        image_processor: VividMedImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        phrase_start_weight: float = 5.0,
    ):
        if tokenizer is None:
            raise VividMedError(
                "processor: the tokenizer is missing; give a Llama tokenizer with the special tokens"
            )
        super().__init__(
            image_processor,
            tokenizer,
            chat_template=chat_template or _CHAT_TEMPLATE.read_text(encoding="utf-8"),
        )
        self.phrase_start_weight = phrase_start_weight
        self.special_token_ids: SpecialTokenIds = special_token_ids(tokenizer)

    @classmethod
    def tiny(cls) -> "VividMedProcessor":
        """The processor of ``VividMedConfig.tiny()``: small patches and budget, and the tokenizer that ships with us."""
        image_processor = VividMedImageProcessor(
            patch_size=(4, 16, 16), max_image_tokens=36, max_slice_tokens=4
        )
        return cls(image_processor, load_tiny_tokenizer())

    @property
    def model_input_names(self) -> list[str]:
        """Keys of a batch for inference that the model takes."""
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
        padding_side: Literal["left", "right"] | None = None,
        max_length: int | None = None,
        truncation: Truncation = "error",
        return_tensors: str = "pt",
        generator: RandomGenerator | None = None,
    ) -> BatchFeature:
        """Build a batch.

        Args:
            images: of one sample: an image or a list; of a batch: such an entry (or None) for every sample. None takes
                the images that the messages carry (``{"type": "image", "path": ...}``). Kinds: see
                :func:`vividmed.processing.reading.read_image`.
            text: a question, or one for every sample; short for a conversation of one user message.
            conversations: messages of one sample, or a list of such lists. Conversations that end with the assistant
                are for training, those that end with the user for generation; a batch holds one kind. Where no
                message mentions an image, the images belong to the first question.
            grounding: ask for grounded text, and give ``grounding_values``.
            padding_side: None pads on the right for training and on the left for generation.
            max_length: largest number of positions of a sample, images included; None sets no limit.
            truncation: ``"error"`` refuses longer samples, ``"answer"`` cuts the end of the answers and warns.
            return_tensors: ``"pt"``.
            generator: jitters the patch depth of volumes, for training.

        Returns:
            ``input_ids``, ``token_type_ids``, ``position_ids``, ``attention_mask``: (B, L) int64; ``pixel_values``
            (and ``grounding_values``): list over all images of the batch of (3, D, H, W); ``patch_sizes``,
            ``pool_sizes``: (num_images, 3); ``geometry``: list of ``ResizePlan``; for training ``labels`` (B, L)
            int64, already shifted, -100 ignored, and ``label_weights`` (B, L) float32.

        Raises:
            VividMedError: bad conversation or image, another number of images than mentioned, or too long.
        """
        if return_tensors != "pt":
            raise VividMedError(f"return_tensors={return_tensors!r} is not supported; use 'pt'")
        batch, batched = _conversations(text, conversations)
        turns = [_named(index, turns_from_messages, conversation) for index, conversation in enumerate(batch)]
        per_sample = self._images(images, batch, batched=batched)
        features = self.image_processor(
            [image for sample in per_sample for image in sample], grounding=grounding, generator=generator
        )
        tokens = iter([plan.num_patch_tokens for plan in features["geometry"]])
        encoded = [
            _named(
                index,
                encode_chat,
                sample_turns,
                [next(tokens) for _ in sample],
                self.tokenizer,
                self.special_token_ids,
                grounding=grounding,
                phrase_start_weight=self.phrase_start_weight,
                max_length=max_length,
                truncation=truncation,
            )
            for index, (sample_turns, sample) in enumerate(zip(turns, per_sample, strict=True))
        ]
        for index, sample_chat in enumerate(encoded):
            if cut := sample_chat.dropped_answer_tokens:
                logger.warning(
                    f"sample {index}: {cut} answer tokens were cut to keep max_length={max_length}"
                )
        return BatchFeature({**_pad(encoded, padding_side), **features})

    def apply_chat_template(
        self,
        conversation: Messages | Sequence[Messages],
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        grounding: bool = False,
        **kwargs,
    ) -> Any:
        """Render the text of a conversation, or build its batch.

        The text shows the layout without its images, which take no text. ``tokenize=True`` is the processor's own
        call on the conversation: all of the batch with ``return_dict=True``, else ``input_ids``.

        Args:
            conversation: messages of one sample, or a list of such lists.
            tokenize: build a batch.
            return_dict: give all of it.
            grounding: ask for grounded text.
            **kwargs: arguments of the processor's call with ``tokenize=True``, else of the template.
        """
        if not tokenize:
            return super().apply_chat_template(conversation, grounding=grounding, **kwargs)
        options = {**(kwargs.pop("processor_kwargs", None) or {}), **kwargs}
        # A question is always followed by the hand-over to the model: there is nothing to add or to leave out.
        options.pop("add_generation_prompt", None)
        if options.pop("continue_final_message", False):
            raise VividMedError(
                "a given beginning of an answer cannot be continued; end the conversation with the user"
            )
        batch = self(conversations=conversation, grounding=grounding, **options)
        return batch if return_dict else batch["input_ids"]

    def num_image_tokens(self, size: Triple, affine: np.ndarray | None = None) -> int:
        """Positions that an image takes in the sequence, told from its shape alone; for length-aware batching.

        Args:
            size: (D, H, W) as read; D = 1 for a picture.
            affine: of an oriented volume, 4 x 4, voxel index (x, y, z) -> RAS+ mm; None for pictures and arrays.
        """
        return self.image_processor.plan(size, affine).num_patch_tokens + 2

    def post_process_text(
        self, sequences: torch.Tensor | Sequence[Sequence[int]], *, prompt_length: int = 0
    ) -> list[ParsedText]:
        """Decode generated ids into clean text and phrases, one for every sequence.

        Args:
            sequences: (B, L) ids that ``generate`` returned.
            prompt_length: leading positions that are prompt, ``inputs["input_ids"].shape[1]``.
        """
        return [parse_grounded_ids(list(ids)[prompt_length:], self.tokenizer) for ids in sequences]

    def post_process_grounding(self, sequences: Sequence[torch.Tensor], **options: Any) -> list[GroundedText]:
        """Decode ids, and carry the masks and boxes of their phrases to the original grid.

        Args:
            sequences: for each sample the ids of its text, without the prompt.
            **options: see :func:`vividmed.processing.postprocessing.place_phrases`.
        """
        texts = [parse_grounded_ids(ids.tolist(), self.tokenizer) for ids in sequences]
        return place_phrases(texts, **options)

    def _images(self, images: Any, batch: list[Messages], *, batched: bool) -> list[list[ImageSource]]:
        """Images of every sample, checked against the images that its messages mention."""
        items = [image_items(conversation) for conversation in batch]
        if images is None:
            attached = [[attached_image(item) for item in sample] for sample in items]
            missing = [
                index for index, sample in enumerate(attached) if any(image is None for image in sample)
            ]
            if missing:
                raise VividMedError(
                    f"sample {missing[0]}: its messages mention an image but none was given; set images"
                )
            return attached
        if batched and not isinstance(images, list | tuple):
            raise VividMedError(
                f"images: a batch of {len(batch)} samples got one image; give a list with one entry a sample"
            )
        entries = list(images) if batched else [images]
        if len(entries) != len(batch):
            raise VividMedError(
                f"{len(batch)} conversations but images for {len(entries)}; give one entry a sample"
            )
        per_sample = [as_list(entry) for entry in entries]
        for index, (given, mentioned) in enumerate(zip(per_sample, items, strict=True)):
            if mentioned and len(mentioned) != len(given):
                raise VividMedError(
                    f"sample {index}: its messages mention {len(mentioned)} images but {len(given)} were given; give one "
                    "image for every {'type': 'image'} item"
                )
        return per_sample


def _conversations(text: Any, conversations: Any) -> tuple[list[Messages], bool]:
    """Conversations of every sample, and whether the caller gave a batch of them."""
    if (text is None) == (conversations is None):
        raise VividMedError("processor: give either text (a question) or conversations (messages)")
    value = text if conversations is None else conversations
    # Messages are mappings, so a list of anything else is a list of samples.
    batched = (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and not isinstance(next(iter(value), {}), Mapping)
    )
    samples = list(value) if batched else [value]
    return (
        [[{"role": "user", "content": sample}] for sample in samples] if conversations is None else samples
    ), batched


def _named(index: int, function: Callable[..., _Result], *args, **kwargs) -> _Result:
    """Call a function of one sample; its errors name the sample."""
    try:
        return function(*args, **kwargs)
    except VividMedError as error:
        raise VividMedError(f"sample {index}: {error}") from None


def _pad(encoded: list[EncodedChat], side: Literal["left", "right"] | None) -> dict[str, torch.Tensor]:
    """Stack samples to (B, L)."""
    training = {sample.labels is not None for sample in encoded}
    if len(training) != 1:
        raise VividMedError("a batch mixes conversations with and without a final answer; split it into two")
    if side is None:
        side = "right" if training == {True} else "left"
    length = max(len(sample.input_ids) for sample in encoded)
    columns: dict[str, list[list]] = {name: [] for name in _PADDING}
    for sample in encoded:
        values = {**vars(sample), "attention_mask": [1] * len(sample.input_ids)}
        for name, padding in _PADDING.items():
            if values[name] is not None:
                filler = [padding] * (length - len(sample.input_ids))
                columns[name].append(filler + values[name] if side == "left" else values[name] + filler)
    return {name: torch.tensor(rows) for name, rows in columns.items() if rows}
