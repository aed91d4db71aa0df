"""Counts tokens of many texts, without the ids."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_SPACE = "\u2581"
_PIECE = re.compile(r" *[^ ]+| +")
_CUT = "\0"
_MOST_PIECES = 1 << 18


class TokenCounter:
    """Counts tokens, at the cost of looking up words where the tokenizer treats words independently.

    A tokenizer in the style of SentencePiece has no token that goes on from the end of a word over the following space.
    Pairs are then never merged across that place, so a text has as many tokens as its pieces, cut before each run of
    spaces. Pieces recur, so each different one is tokenised only once. Texts of other tokenizers are tokenised whole.

    Args:
        tokenizer: a fast or slow tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._by_pieces = _has_independent_words(tokenizer)
        self._counts: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, special tokens of the tokenizer not added."""
        cut = [self._pieces(text) for text in texts]
        if len(self._counts) > _MOST_PIECES:
            self._counts.clear()
        known = self._counts
        new = list(set().union(*cut).difference(known))
        if new:
            ids = self._tokenizer(new, add_special_tokens=False)["input_ids"]
            known.update(zip(new, map(len, ids), strict=True))
        return [sum(map(known.__getitem__, pieces)) for pieces in cut]

    def _pieces(self, text: str) -> list[str]:
        if not self._by_pieces:
            return [text]
        if "  " in text or text[:1] == " " or text[-1:] == " ":
            return _PIECE.findall(text)
        # The same for a text of single spaces, in a fifth of the time.
        return text.replace(" ", f"{_CUT} ").split(_CUT) if _CUT not in text else _PIECE.findall(text)


@lru_cache(maxsize=4)
def token_counter(tokenizer: Any) -> TokenCounter:
    """The counter of a tokenizer, with the pieces that it has seen."""
    return TokenCounter(tokenizer)


def _has_independent_words(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    parts = json.loads(backend.to_str())
    cut = parts["pre_tokenizer"] or {}
    plain = (
        parts["model"]["type"] == "BPE"
        and parts["normalizer"] is None
        and (cut.get("type"), cut.get("replacement"), cut.get("split")) == ("Metaspace", _SPACE, False)
        and cut.get("prepend_scheme") in ("first", "never")
    )
    words = [*parts["model"].get("vocab", ()), *(token["content"] for token in parts["added_tokens"])]
    return plain and not any(_goes_over_a_space(word.replace(" ", _SPACE)) for word in words)


def _goes_over_a_space(token: str) -> bool:
    return _SPACE in token.lstrip(_SPACE)
