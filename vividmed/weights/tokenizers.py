"""Tokenizers of other language models, extended to those that VividMed needs."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vividmed.errors import VividMedError
from vividmed.models.configuration import one_line
from vividmed.processing.special_tokens import SPECIAL_TOKENS, add_special_tokens
from vividmed.processing.tokenizer import load_sentencepiece_tokenizer


def load_tokenizer(place: Path, *, vocab_size: int, option: str = "--tokenizer") -> PreTrainedTokenizerBase:
    """Load a tokenizer and give it VividMed's tokens, after those of the language model.

    Language models often have more rows than their tokenizer has tokens. The tokenizer is filled up with unused ones
    first, so that no row changes its meaning.

    Args:
        place: folder with a tokenizer, or a SentencePiece file (``tokenizer.model``).
        vocab_size: number of rows of the language model.
        option: the option that named the tokenizer, which begins errors.

    Returns:
        A tokenizer with begin, end and padding tokens, whose ids run from 0 without a gap.

    Raises:
        VividMedError: there is no tokenizer, or it cannot serve.
    """
    tokenizer = _load(place, option)
    ids = set(tokenizer.get_vocab().values())
    if ids != set(range(len(tokenizer))):
        raise VividMedError(
            f"{option} {place}: the ids of its {len(tokenizer)} tokens have gaps; give the tokenizer of the language model"
        )
    present = [token for token in SPECIAL_TOKENS if token in tokenizer.get_vocab()]
    if present and len(present) < len(SPECIAL_TOKENS):
        raise VividMedError(
            f"{option} {place}: contains {', '.join(present)} but not all of VividMed's tokens; give the tokenizer of the "
            "language model as it was published"
        )
    if not present:
        _fill(tokenizer, vocab_size)
        add_special_tokens(tokenizer)
    _complete(tokenizer, place, option)
    return tokenizer


def _load(place: Path, option: str) -> PreTrainedTokenizerBase:
    # transformers 5 would give a bare SentencePiece model another order of merges.
    bare = place / "tokenizer.model" if place.is_dir() else place
    if place.is_file() or (bare.is_file() and not (place / "tokenizer.json").is_file()):
        return load_sentencepiece_tokenizer(bare)
    try:
        return AutoTokenizer.from_pretrained(place)
    except Exception as error:  # the library raises errors of many classes for what is not a tokenizer
        raise VividMedError(
            f"{option} {place}: contains no tokenizer that can be loaded ({one_line(error)[:160]}); give a folder with "
            "tokenizer.json or tokenizer.model"
        ) from error


def _fill(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    names = (f"<unused_{index}>" for index in range(2 * size))
    vocabulary = tokenizer.get_vocab()
    missing = size - len(tokenizer)
    new = [name for name in names if name not in vocabulary][: max(missing, 0)]
    if new:
        tokenizer.add_tokens(new, special_tokens=True)


def _complete(tokenizer: PreTrainedTokenizerBase, place: Path, option: str) -> None:
    """Choose begin, end and padding tokens where the tokenizer has none, as the language model's settings say."""
    if tokenizer.eos_token_id is None:
        eos = _stated(tokenizer, place, "eos_token_id")
        if eos is None:
            raise VividMedError(
                f"{option} {place}: has no end token (eos_token); state it in its tokenizer_config.json"
            )
        tokenizer.eos_token = eos
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = _stated(tokenizer, place, "bos_token_id") or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token


def _stated(tokenizer: PreTrainedTokenizerBase, place: Path, field: str) -> str | None:
    """The token whose id a field of config.json beside the tokenizer names."""
    try:
        value: Any = json.loads((place / "config.json").read_text(encoding="utf-8")).get(field)
    except (OSError, ValueError, AttributeError):
        return None
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, int) or not 0 <= value < len(tokenizer):
        return None
    return str(tokenizer.convert_ids_to_tokens(value))
