"""Pad the samples of a batch to one length."""

from collections.abc import Sequence
from typing import Literal

from vividmed.errors import VividMedError
from vividmed.processing.chat import IGNORE, EncodedChat

PaddedLength = int | Literal["longest", "equal"]

_FILLERS: dict[str, float] = {
    "input_ids": 0,
    "token_type_ids": 0,
    "position_ids": 0,
    "attention_mask": 0,
    "turn_ids": 0,
    "labels": IGNORE,
    "label_weights": 0.0,
}


def padded_length(padding: bool | str | None, max_length: int | None) -> PaddedLength:
    """Length to pad to: a number, ``"longest"`` for the longest sample, or ``"equal"`` if samples must agree.

    Args:
        padding: as the tokenizers of transformers take it.
        max_length: length for ``padding="max_length"``.

    Raises:
        VividMedError: unknown strategy, or no ``max_length`` to pad to.
    """
    name = getattr(padding, "value", padding)  # a PaddingStrategy of transformers, or plain
    if name in (True, None, "longest"):
        return "longest"
    if name in (False, "do_not_pad"):
        return "equal"
    if name == "max_length" and max_length is not None:
        return max_length
    need = "needs max_length" if name == "max_length" else "is not supported; use True, False or 'max_length'"
    raise VividMedError(f"padding={padding!r} {need}")


def pad_chats(
    chats: Sequence[EncodedChat],
    *,
    side: Literal["left", "right"] | None,
    length: PaddedLength,
    multiple: int | None = None,
    turns: bool = False,
) -> dict[str, list[list[float]]]:
    """Pad samples to lists of one length.

    Args:
        chats: samples, all with or all without an answer at their end.
        side: None pads on the right if there are answers (training) and on the left if not (generation).
        length: see :func:`padded_length`.
        multiple: round the length up to a multiple of it.
        turns: return ``turn_ids`` too.

    Returns:
        Columns of the batch, each (B, L).

    Raises:
        VividMedError: samples with and without an answer are mixed, differ in length although they may not be padded, or
            the side is unknown.
    """
    training = {chat.labels is not None for chat in chats}
    if len(training) != 1:
        raise VividMedError("a batch mixes conversations with and without a final answer; split it into two")
    if side is None:
        side = "right" if training == {True} else "left"
    if side not in ("left", "right"):
        raise VividMedError(f"padding_side={side!r} is not supported; use 'left' or 'right'")
    lengths = [len(chat.input_ids) for chat in chats]
    if length == "equal" and min(lengths) != max(lengths):
        raise VividMedError(
            f"padding is off, but samples have {min(lengths)} to {max(lengths)} tokens; use padding=True"
        )
    longest = max([*lengths, length] if isinstance(length, int) else lengths)
    if multiple:
        longest = -(-longest // multiple) * multiple
    columns: dict[str, list[list[float]]] = {name: [] for name in _FILLERS if turns or name != "turn_ids"}
    for chat in chats:
        values = {**vars(chat), "attention_mask": [1] * len(chat.input_ids)}
        for name in columns:
            if values[name] is not None:
                padding = [_FILLERS[name]] * (longest - len(chat.input_ids))
                columns[name].append(padding + values[name] if side == "left" else values[name] + padding)
    return {name: rows for name, rows in columns.items() if rows}
