"""The samples of a batch: their messages and their images, in whatever way the caller gave them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from vividmed.errors import VividMedError
from vividmed.processing.messages import Message, attached_image, image_items, plain_messages
from vividmed.processing.reading import ImageSource, as_list

Messages = Sequence[Message]
SampleImages = ImageSource | Sequence[ImageSource] | None

_Result = TypeVar("_Result")


def split_samples(text: Any, conversations: Any) -> tuple[list[Messages], bool]:
    """Messages of every sample, unchecked, and whether the caller gave a list of samples.

    Raises:
        VividMedError: neither or both of text and conversations are given.
    """
    if (text is None) == (conversations is None):
        raise VividMedError("processor: give either text (a question) or conversations (messages)")
    conversations = plain_messages(conversations)
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


def sample_images(images: Any, batch: list[Messages], *, batched: bool) -> list[list[ImageSource]]:
    """Sort images to their samples, checked against the images that the messages mention.

    Args:
        images: as the processor takes them.
        batch: checked messages of each sample.
        batched: whether the caller gave a list of samples.

    Raises:
        VividMedError: more or fewer images than samples or than mentioned, or None in place of an image.
    """
    items = [image_items(conversation) for conversation in batch]
    attached = [
        [name_sample(index, attached_image, item) for item in sample] for index, sample in enumerate(items)
    ]
    if images is None:
        missing = [index for index, sample in enumerate(attached) if any(image is None for image in sample)]
        if missing:
            raise VividMedError(
                f"sample {missing[0]}: its messages mention an image but none was given; set images"
            )
        return attached
    if batched and not isinstance(images, list | tuple):
        raise VividMedError(
            f"images: a batch of {len(batch)} samples got one image; give a list with one entry per sample"
        )
    entries = list(images) if batched else [images]
    if len(entries) != len(batch):
        raise VividMedError(
            f"{len(batch)} conversations but images for {len(entries)}; give one entry per sample"
        )
    if entries and all(entry is None for entry in entries):
        raise VividMedError("images: every entry is None; give images, or leave images out to ask without")
    per_sample = [as_list(entry) for entry in entries]
    for index, (given, carried) in enumerate(zip(per_sample, attached, strict=True)):
        if any(image is None for image in given):
            raise VividMedError(f"sample {index}: an image is None; give an image in its place")
        if given and any(image is not None for image in carried):
            raise VividMedError(
                f"sample {index}: images are given both in its messages and in images; give them once"
            )
        if carried and len(carried) != len(given):
            raise VividMedError(
                f"sample {index}: its messages mention {len(carried)} images but {len(given)} were given; give one "
                "image per {'type': 'image'} item"
            )
    return per_sample


def name_sample(index: int, function: Callable[..., _Result], *args, **kwargs) -> _Result:
    """Call a function that handles one sample, so that its errors name the sample."""
    try:
        return function(*args, **kwargs)
    except VividMedError as error:
        raise VividMedError(f"sample {index}: {error}") from None
