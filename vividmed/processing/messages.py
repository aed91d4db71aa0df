"""Conversations as ``messages``, checked and turned into questions and answers."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from vividmed.errors import VividMedError
from vividmed.processing.chat import ChatTurn
from vividmed.processing.grounded_text import find_marker, unpaired_marker
from vividmed.processing.reading import read_encoded
from vividmed.processing.special_tokens import GROUNDING, NO_GROUNDING, SYSTEM, USER

Message = Mapping[str, Any]

_ROLES = ("user", "assistant")
_STRUCTURE = (SYSTEM, USER, GROUNDING, NO_GROUNDING, "<s>", "</s>", "<unk>")
_IMAGE_TYPES = ("image", "image_url")
_IMAGE_KEYS = ("image", "path", "url", "image_url", "base64")


def turns_from_messages(messages: Sequence[Message], *, grounding: bool) -> list[ChatTurn]:
    """Pair user and assistant messages.

    Args:
        messages: ``[{"role": "user" | "assistant", "content": ...}, ...]``, alternating and beginning with the user.
            Content is a string or a list of ``{"type": "text", "text": ...}``, ``{"type": "image"}`` and
            ``{"type": "image_url"}`` items; several texts of a message are joined by line breaks.
        grounding: whether the text is grounded, so that ``<p>`` and ``</p>`` mark phrases.

    Returns:
        Turns; the last has the answer None if the conversation ends with the user.

    Raises:
        VividMedError: empty conversation, unknown role, roles out of turn, an item of another type, empty text, or a
            special token of the model written out in a text: structural ones always, phrase markers where the text is
            not grounded or where they do not come in pairs.
    """
    if isinstance(messages, Mapping | str | bytes) or not isinstance(messages, Sequence):
        raise VividMedError(
            f"conversation is a {type(messages).__name__}; give a list of {{'role': ..., 'content': ...}} messages"
        )
    if not messages:
        raise VividMedError("conversation is empty; give at least one message with role 'user'")
    texts = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise VividMedError(
                f"message {index} is a {type(message).__name__}; give {{'role': ..., 'content': ...}}"
            )
        role = message.get("role")
        if role == "system":
            raise VividMedError(
                f"message {index}: role 'system' is unknown, because the weights are trained without system prompts; "
                "put its text into the first question"
            )
        if role not in _ROLES:
            raise VividMedError(f"message {index}: role {role!r} is unknown; use 'user' or 'assistant'")
        if role != _ROLES[index % 2]:
            raise VividMedError(
                f"message {index}: role {role!r} is out of turn; alternate 'user' and 'assistant', beginning with "
                "'user'"
            )
        texts.append(_text(message, index))
        _check_markers(texts[-1], index, grounding=grounding)
    answers: list[str | None] = [*texts[1::2]]
    if len(texts) % 2:
        answers.append(None)
    return [ChatTurn(query, answer) for query, answer in zip(texts[::2], answers, strict=True)]


def plain_messages(value: Any) -> Any:
    """Turn messages and content items that are objects into mappings, without their fields that are None.

    Args:
        value: messages, or a list of conversations; anything else than dataclasses and pydantic objects stays as it is.
    """
    if isinstance(value, list | tuple):
        return [plain_messages(item) for item in value]
    message = _plain(value)
    if isinstance(message, Mapping) and isinstance(message.get("content"), list | tuple):
        return {**message, "content": [_plain(item) for item in message["content"]]}
    return message


def image_items(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    """Image items of a conversation that :func:`turns_from_messages` accepts, in order of mention."""
    return [
        item
        for message in messages
        if not isinstance(message["content"], str)
        for item in message["content"]
        if item["type"] in _IMAGE_TYPES
    ]


def attached_image(item: Mapping[str, Any]) -> Any:
    """Image that an item carries; None for a bare ``{"type": "image"}``.

    Args:
        item: with the image under ``image``, ``path``, ``url``, ``base64`` or ``image_url`` (a string, or a mapping with
            the string under ``url``). A string is a path, a ``file://`` address or a ``data:`` URL.

    Raises:
        VividMedError: it is a web address, which is never fetched, or a damaged data URL.
    """
    image: Any = next((item[key] for key in _IMAGE_KEYS if item.get(key) is not None), None)
    if isinstance(image, Mapping):
        image = image.get("url")
    if not isinstance(image, str):
        return image
    if item.get("base64") == image:
        return read_encoded(_from_base64(image.encode(errors="replace")), "base64 image")
    if image.startswith("data:"):
        return _read_data_url(image)
    if "://" in image:
        if image.startswith("file://"):
            return url2pathname(urlsplit(image).path)
        raise VividMedError(f"image {image[:200]!r} is a web address; download the file and give its path")
    return image


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(type(value), "model_fields"):  # pydantic, of which iteration yields names and values
        members = dict(value)
    else:
        return value
    return {name: member for name, member in members.items() if member is not None}


def _read_data_url(url: str) -> Any:
    header, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise VividMedError(f"image {url[:60]!r} is not a data URL; give data:image/png;base64,...")
    content = unquote_to_bytes(data)
    return read_encoded(
        _from_base64(content) if header.endswith(";base64") else content, "image of a data URL"
    )


def _from_base64(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise VividMedError(f"image is not valid base64 ({error}); encode the file again") from error


def _text(message: Message, index: int) -> str:
    content = message.get("content")
    if isinstance(content, str):
        text = content
    elif isinstance(content, Sequence) and not isinstance(content, bytes):
        texts = [_item_text(item, index) for item in content]
        text = "\n".join(part for part in texts if part is not None)
    else:
        raise VividMedError(
            f"message {index}: content is a {type(content).__name__}; give a string or a list of items"
        )
    if not text.strip():
        hint = (
            "leave the message out to ask for an answer"
            if message["role"] == "assistant"
            else "ask something"
        )
        raise VividMedError(f"message {index}: the {message['role']}'s text is empty; {hint}")
    if not _is_unicode(text):
        raise VividMedError(f"message {index}: the text contains half a character; save it as UTF-8")
    return text


def _item_text(item: Any, index: int) -> str | None:
    """Text of an item; None for an image."""
    item_type = item.get("type") if isinstance(item, Mapping) else type(item).__name__
    if item_type in _IMAGE_TYPES:
        return None
    if not isinstance(item, Mapping) or item_type != "text" or not isinstance(item.get("text"), str):
        raise VividMedError(
            f"message {index}: content item of type {item_type!r} is not understood; use {{'type': 'text', 'text': ...}}, "
            "{'type': 'image', 'path': ...} or {'type': 'image_url', ...}"
        )
    return item["text"]


def _check_markers(text: str, index: int, *, grounding: bool) -> None:
    if found := next((token for token in _STRUCTURE if token in text), None):
        raise VividMedError(
            f"message {index}: the text contains {found}, which builds the conversation; remove it"
        )
    if not grounding:
        if found := find_marker(text):
            raise VividMedError(
                f"message {index}: the text contains {found}, which marks a phrase of grounded text; remove it, or ask "
                "for grounding=True"
            )
    elif found := unpaired_marker(text):
        raise VividMedError(
            f"message {index}: {found} does not belong to a pair; write phrases as <p>phrase</p>, one after another"
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
