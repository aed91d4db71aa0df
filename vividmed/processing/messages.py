"""The ``messages`` form of a conversation, checked and turned into questions and answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from vividmed.errors import VividMedError
from vividmed.processing.chat import ChatTurn
from vividmed.processing.special_tokens import GROUNDING, NO_GROUNDING, SYSTEM, USER

Message = Mapping[str, Any]

_ROLES = ("user", "assistant")
_STRUCTURE = (SYSTEM, USER, GROUNDING, NO_GROUNDING, "<s>", "</s>")
_IMAGE_KEYS = ("image", "path", "url")


def turns_from_messages(messages: Sequence[Message]) -> list[ChatTurn]:
    """Pair user and assistant messages.

    Args:
        messages: ``[{"role": "user" | "assistant", "content": ...}, ...]`` in turns, beginning with the user. Content
            is a string or a list of ``{"type": "text", "text": ...}`` and ``{"type": "image"}`` items; several texts
            of a message are joined by line breaks.

    Returns:
        Turns; the last has the answer None where the conversation ends with the user.

    Raises:
        VividMedError: empty conversation, unknown role, roles out of turn, empty text, or a structural token of the
            model inside a text.
    """
    if isinstance(messages, Mapping | str) or not isinstance(messages, Sequence):
        raise VividMedError(
            f"conversation is a {type(messages).__name__}; give a list of {{'role': ..., 'content': ...}} messages"
        )
    if not messages:
        raise VividMedError("conversation is empty; give at least one message with role 'user'")
    texts = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in _ROLES:
            raise VividMedError(f"message {index}: role {role!r} is unknown; use 'user' or 'assistant'")
        if role != _ROLES[index % 2]:
            raise VividMedError(
                f"message {index}: role {role!r} is out of turn; alternate 'user' and 'assistant', beginning with "
                "'user'"
            )
        texts.append(_text(message, index))
    answers: list[str | None] = [*texts[1::2]]
    if len(texts) % 2:
        answers.append(None)
    return [ChatTurn(query, answer) for query, answer in zip(texts[::2], answers, strict=True)]


def image_items(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    """The ``{"type": "image", ...}`` items of a conversation in order of mention."""
    return [
        item
        for message in messages
        if isinstance(message.get("content"), Sequence) and not isinstance(message["content"], str)
        for item in message["content"]
        if item.get("type") == "image"
    ]


def attached_image(item: Mapping[str, Any]) -> Any:
    """The image that an item carries under ``image``, ``path`` or ``url``; None for a bare ``{"type": "image"}``.

    Raises:
        VividMedError: it is a web address.
    """
    image = next((item[key] for key in _IMAGE_KEYS if item.get(key) is not None), None)
    if isinstance(image, str) and "://" in image:
        raise VividMedError(f"image {image!r} is a web address; download the file and give its path")
    return image


def _text(message: Message, index: int) -> str:
    content = message.get("content")
    if isinstance(content, str):
        text = content
    elif isinstance(content, Sequence):
        text = "\n".join(_item_text(item, index) for item in content if item.get("type") != "image")
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
    if found := next((token for token in _STRUCTURE if token in text), None):
        raise VividMedError(
            f"message {index}: the text holds {found}, which builds the conversation; remove it"
        )
    return text


def _item_text(item: Mapping[str, Any], index: int) -> str:
    if item.get("type") != "text" or not isinstance(item.get("text"), str):
        raise VividMedError(
            f"message {index}: content item of type {item.get('type')!r} is not understood; use "
            "{'type': 'text', 'text': ...} or {'type': 'image'}"
        )
    return item["text"]
