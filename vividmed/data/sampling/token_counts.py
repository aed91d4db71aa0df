"""Counts tokens of many texts, without their ids."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
        if not self._by_pieces:
            return self._counts_of(texts).tolist()
        plain = np.array([_is_plain(text) for text in texts], bool)
        totals = np.zeros(len(texts), np.int64)
        for chosen, cut in ((plain, _cut_plain), (~plain, _cut)):
            if chosen.any():
                totals[chosen] = self._totals(
                    cut([texts[index] for index in np.flatnonzero(chosen).tolist()])
                )
        return totals.tolist()

    def _totals(self, pieces: pa.ListArray) -> np.ndarray:
        """(texts,) number of tokens, from the pieces of each text."""
        different = pieces.flatten().dictionary_encode()
        counts = self._counts_of(different.dictionary.to_pylist())[different.indices.to_numpy()]
        before = np.concatenate([[0], counts.cumsum()])
        offsets = pieces.offsets.to_numpy()
        return before[offsets[1:]] - before[offsets[:-1]]

    def _counts_of(self, pieces: Sequence[str]) -> np.ndarray:
        """(pieces,) number of tokens of each."""
        known = self._counts
        if len(known) > _MOST_PIECES:
            known.clear()
        new = [piece for piece in pieces if piece not in known]
        if new:
            ids = self._tokenizer(new, add_special_tokens=False)["input_ids"]
            known.update(zip(new, map(len, ids), strict=True))
        return np.array([known[piece] for piece in pieces], np.int64)


def _is_plain(text: str) -> bool:
    """Whether all spaces of a text are single ones between words."""
    return not ("  " in text or text[:1] == " " or text[-1:] == " " or _CUT in text)


def _cut(texts: Sequence[str]) -> pa.ListArray:
    """Cut texts before each run of spaces."""
    return pa.array([_PIECE.findall(text) for text in texts], pa.list_(pa.string()))


def _cut_plain(texts: Sequence[str]) -> pa.ListArray:
    """The same for plain texts, a column at a time."""
    return pc.split_pattern(pc.replace_substring(pa.array(texts, pa.string()), " ", f"{_CUT} "), _CUT)


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
