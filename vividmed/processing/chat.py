"""Encode conversations as token ids, token types, positions, labels and weights, in the published layout.

    <s>  boi patches eoi  [boi patches eoi ...]  <grd>|<ngrd>  <usr> QUERY <sys> ANSWER  <usr> QUERY <sys> ANSWER ...

All images of a conversation stand right after ``<s>``, in the order of mention. Prompt and answer are tokenised
separately, and no end-of-sequence token enters the input: it is only the label of every answer's last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from vividmed.errors import VividMedError
from vividmed.processing.special_tokens import (
    NEGATIVE_PHRASE_END,
    NEGATIVE_PHRASE_START,
    PHRASE_END,
    PHRASE_START,
    SYSTEM,
    USER,
    SpecialTokenIds,
)

IGNORE = -100
"""Label of a position that the loss ignores."""

IMAGE_PLACEHOLDER_ID = 0
"""Token id at the positions of visual tokens."""

Truncation = Literal["error", "answer"]

_MARKERS = (PHRASE_START, PHRASE_END, NEGATIVE_PHRASE_START, NEGATIVE_PHRASE_END)


@dataclass(frozen=True)
class ChatTurn:
    """One question and its answer; None for an answer yet to be generated."""

    query: str
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class EncodedChat:
    """A conversation as lists of equal length, one entry per position.

    Attributes:
        input_ids: token ids, 0 at visual tokens.
        token_type_ids: 0 for text, k >= 1 for the begin, patch and end tokens of the k-th image.
        position_ids: rotary positions; see :func:`text_position_ids`.
        turn_ids: 0 before the first question, k >= 1 for question and answer of the k-th turn.
        labels: token to predict at each position (already shifted), -100 elsewhere; None without an answer.
        label_weights: weight of each position's loss; None without an answer.
        dropped_answer_tokens: number of answer tokens that truncation cut off.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    position_ids: list[int]
    turn_ids: list[int]
    labels: list[int] | None
    label_weights: list[float] | None
    dropped_answer_tokens: int


def text_position_ids(ids: Sequence[int], *, first: int, phrase_start: int, phrase_end: int) -> list[int]:
    """Number the positions of text tokens; phrase markers take no position of their own.

    The token after ``<p>`` shares the position of ``<p>``, and ``</p>`` shares that of the token before it.

    Args:
        ids: text token ids.
        first: position of the first of them.
        phrase_start: id of ``<p>``.
        phrase_end: id of ``</p>``.
    """
    positions: list[int] = []
    position, previous = first - 1, None
    for token in ids:
        if previous != phrase_start and token != phrase_end:
            position += 1
        positions.append(position)
        previous = token
    return positions


def _restarted(positions: Sequence[int], turn_ids: Sequence[int]) -> list[int]:
    """Positions of which those of every turn start where those of the first turn do."""
    starts = [positions[turn_ids.index(number)] for number in range(1, turn_ids[-1] + 1)]
    return [
        position - (starts[turn - 1] - starts[0] if turn else 0)
        for position, turn in zip(positions, turn_ids, strict=True)
    ]


def encode_chat(
    turns: Sequence[ChatTurn],
    image_tokens: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    special: SpecialTokenIds,
    *,
    grounding: bool,
    independent_turns: bool = False,
    phrase_start_weight: float = 1.0,
    max_length: int | None = None,
    truncation: Truncation = "error",
) -> EncodedChat:
    """Encode a conversation for training (every turn answered) or for generation (the last answer is None).

    ``<np> phrase</np>`` enters as ``<p> phrase</p>``, but where ``<np>`` came next the label is the phrase's first
    word (continue without a marker) and where ``</np>`` came next it is ``</p>``. Unlike the published code, markers
    inside the user's prompt never become labels. As in the published code, positions before any
    opening marker carry ``phrase_start_weight``.

    Args:
        turns: at least one.
        image_tokens: number of patch tokens of each image, without its begin and end token.
        tokenizer: tokenizer with the special tokens.
        special: its special ids.
        grounding: whether to ask for grounded text (``<grd>``) or plain text (``<ngrd>``).
        independent_turns: whether the positions of every turn follow those of the images, as if it were the only one.
        phrase_start_weight: loss weight where the next token opens a phrase.
        max_length: largest number of positions.
        truncation: ``"error"`` refuses a longer conversation, ``"answer"`` cuts the end of its answers.

    Raises:
        VividMedError: the conversation is too long, or nothing of the answer would be left.
    """
    prefix, types, positions = _image_prefix(image_tokens, special)
    answered = turns[-1].answer is not None
    text = [special.grounding if grounding else special.no_grounding]
    labels = [IGNORE]
    from_answer = [False]
    turn_ids = [0]
    for number, turn in enumerate(turns, start=1):
        prompt = tokenizer.encode(f"{USER} {turn.query}{SYSTEM}", add_special_tokens=False)
        answer = [] if turn.answer is None else _answer_ids(turn.answer, tokenizer)
        _check_structure([*prompt, *answer], special, tokenizer)
        text += prompt + answer
        labels += [IGNORE] * (len(prompt) - 1) + _answer_labels(answer, special)
        from_answer += [False] * len(prompt) + [True] * len(answer)
        turn_ids += [number] * (len(prompt) + len(answer))
    text = [_as_positive(token, special) for token in text]
    weights = (
        [0.0] + [phrase_start_weight if token == special.phrase_start else 1.0 for token in text[2:]] + [1.0]
    )

    text_positions = text_position_ids(
        text,
        first=positions[-1] + 1,
        phrase_start=special.phrase_start,
        phrase_end=special.phrase_end,
    )
    if independent_turns:
        text_positions = _restarted(text_positions, turn_ids)

    before = len(prefix)
    if not answered:
        labels = [IGNORE] * len(text)
    length = _truncated_length(
        before + len(text),
        prompt_length=before + next((i for i, label in enumerate(labels) if label != IGNORE), len(text)),
        image_length=before,
        max_length=max_length,
        truncation=truncation,
    )
    return EncodedChat(
        input_ids=(prefix + text)[:length],
        token_type_ids=(types + [0] * len(text))[:length],
        position_ids=(positions + text_positions)[:length],
        turn_ids=([0] * before + turn_ids)[:length],
        labels=([IGNORE] * before + labels)[:length] if answered else None,
        label_weights=([0.0] * before + weights)[:length] if answered else None,
        dropped_answer_tokens=sum(from_answer[length - before :]),
    )


def _image_prefix(
    image_tokens: Sequence[int], special: SpecialTokenIds
) -> tuple[list[int], list[int], list[int]]:
    """Ids, types and positions of ``<s>`` and the images: all patches of an image share one position."""
    ids, types, positions = [special.begin], [0], [0]
    for number, patches in enumerate(image_tokens, start=1):
        begin = positions[-1] + 1
        ids += [IMAGE_PLACEHOLDER_ID] * (patches + 2)
        types += [number] * (patches + 2)
        positions += [begin] + [begin + 1] * patches + [begin + 2]
    return ids, types, positions


def _answer_ids(answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # An answer is preceded by a space, unless it begins with a marker. SentencePiece puts one before every text. The
    # tokenizers of transformers 5 leave it out where the text begins with one, which the published code did not.
    spaced = answer.startswith(" ") if _puts_space_first(tokenizer) else not answer.startswith(_MARKERS)
    return tokenizer.encode(f" {answer}" if spaced else answer, add_special_tokens=False)


def _puts_space_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer reads every text as if a space came before it, as those of Llama and Vicuna do."""
    first = tokenizer.encode("a", add_special_tokens=False)[:1]
    return bool(first) and str(tokenizer.convert_ids_to_tokens(first)[0]).startswith("▁")


def _check_structure(
    ids: Sequence[int], special: SpecialTokenIds, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse text in which the tokenizer finds its own begin or end token, whatever that looks like."""
    if found := {special.begin, special.end}.intersection(ids):
        token = tokenizer.convert_ids_to_tokens(found.pop())
        raise VividMedError(f"the text contains {token}, which builds the conversation; remove it")


def _answer_labels(answer: list[int], special: SpecialTokenIds) -> list[int]:
    """Labels from the last prompt token to the last answer token: the answer, then end of sequence."""
    if not answer:
        return [IGNORE]
    labels = [*answer, special.end]
    for index in reversed(range(len(answer))):
        if labels[index] == special.negative_phrase_end:
            labels[index] = special.phrase_end
        elif labels[index] == special.negative_phrase_start:
            labels[index] = labels[index + 1]
    return labels


def _as_positive(token: int, special: SpecialTokenIds) -> int:
    if token == special.negative_phrase_start:
        return special.phrase_start
    if token == special.negative_phrase_end:
        return special.phrase_end
    return token


def _truncated_length(
    length: int, *, prompt_length: int, image_length: int, max_length: int | None, truncation: Truncation
) -> int:
    if max_length is None or length <= max_length:
        return length
    if max_length < image_length:
        raise VividMedError(
            f"max_length={max_length} is too small for the images, which take {image_length} tokens; raise max_length "
            "or lower the image processor's max_image_tokens"
        )
    if max_length <= prompt_length:
        raise VividMedError(
            f"max_length={max_length} leaves no room for an answer after images and question of {prompt_length} "
            "tokens; raise max_length or shorten the question"
        )
    if truncation == "error":
        raise VividMedError(
            f"images, question and answer take {length} tokens, more than max_length={max_length}; raise max_length, "
            "shorten the answer, or pass truncation='answer' to cut its end"
        )
    return max_length
