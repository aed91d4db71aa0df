"""Turns rows into what the processor takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vividmed.data import image_grids
from vividmed.data.conversations import Conversation, sample_generator
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_encoded, read_image


def to_example(row: Mapping[str, Any], conversation: Conversation | None = None) -> dict[str, Any]:
    """Images and conversation of a vision-language row.

    Args:
        row: a row with the columns ``images``, ``volumes`` and ``messages``. Images may be decoded (PIL, nibabel) or
            encoded as ``datasets`` stores them (``{"bytes": ..., "path": ...}``).
        conversation: a conversation drawn about the row; None for its own messages.

    Returns:
        ``images``: list of :class:`MedicalImage`, pictures before volumes, in order of mention;
        ``messages``: list of ``{"role", "content"}`` with plain text. The images belong to the first user turn.

    Raises:
        VividMedError: an image cannot be read, or there is none; the message names the column and the place in it.
    """
    messages = row["messages"] if conversation is None else conversation.messages
    return {
        "images": read_images(row),
        "messages": [{"role": turn["role"], "content": turn["content"]} for turn in messages],
    }


def shuffled_turns(
    messages: Sequence[dict[str, str]], row: Mapping[str, Any], *, seed: int
) -> list[dict[str, str]]:
    """Pairs of question and answer in an order that depends on (seed, epoch, index) only.

    Args:
        messages: alternating turns of user and assistant.
        row: a row with ``epoch`` and ``index``; without an epoch, as in evaluation, the order stays.
        seed: random seed.
    """
    if row.get("epoch") is None:
        return list(messages)
    generator = sample_generator(seed=seed, epoch=row["epoch"], index=row["index"])
    order = generator.permutation(len(messages) // 2)
    return [turn for pair in order for turn in messages[2 * pair : 2 * pair + 2]]


def read_images(row: Mapping[str, Any]) -> list[MedicalImage]:
    """Images of a row of any kind, pictures before volumes.

    Raises:
        VividMedError: an image cannot be read, is not on the grid that the row states, or there is none; the message
            names the column and the place in it.
    """
    images = []
    for column in image_grids.IMAGE_COLUMNS:
        if row.get(column) is None:
            raise VividMedError(f"field {column!r} is missing or null; give a list, which may be empty")
        images += [_read(value, f"{column}[{number}]") for number, value in enumerate(row[column])]
    if not images:
        raise VividMedError("fields 'images' and 'volumes' are both empty; a row needs an image")
    if row.get(image_grids.COLUMN) is not None:
        image_grids.check_grids(row[image_grids.COLUMN], images)
    return images


def _read(value: Any, name: str) -> MedicalImage:
    if value is None:
        raise VividMedError(f"{name}: is null; store an image there, or remove the row")
    try:
        image = _decode(value, name) if isinstance(value, Mapping) else read_image(value)
    except VividMedError as error:
        raise VividMedError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    return image if image.source == name else replace(image, source=name)


def _decode(file: Mapping[str, Any], name: str) -> MedicalImage:
    """Read an image as ``datasets`` stores it: the content of a file, or its path."""
    content, path = file.get("bytes"), file.get("path")
    if content is not None:
        return read_encoded(content, name)
    if not path:
        raise VividMedError(f"{name}: neither bytes nor a path is given; store one of them")
    return read_image(path)
