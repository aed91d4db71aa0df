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

    def __call__(self, texts: pa.StringArray) -> np.ndarray:
        """(texts,) number of tokens of each text, special tokens of the tokenizer not added; no text may be null."""
        if not self._by_pieces:
            return self._counts_of(texts.to_pylist())
        plain = _are_plain(texts)
        totals = np.zeros(len(texts), np.int64)
        for chosen, totals_of in ((plain, self._plain_totals), (~plain, self._totals)):
            if chosen.any():
                totals[chosen] = totals_of(texts.filter(pa.array(chosen)))
        return totals

    def _plain_totals(self, texts: pa.StringArray) -> np.ndarray:
        """(texts,) number of tokens of texts whose spaces are single ones between words."""
        words = pc.split_pattern(texts, " ")
        different = words.flatten().dictionary_encode()
        names, indices = different.dictionary.to_pylist(), different.indices.to_numpy()
        offsets = words.offsets.to_numpy()
        counts = self._counts_of([f" {name}" for name in names])[indices]
        # No space stands before the first word.
        first, which = np.unique(indices[offsets[:-1]], return_inverse=True)
        counts[offsets[:-1]] = self._counts_of([names[index] for index in first])[which]
        return np.add.reduceat(counts, offsets[:-1])

    def _totals(self, texts: pa.StringArray) -> np.ndarray:
        """(texts,) number of tokens of any texts."""
        pieces = [_PIECE.findall(text) for text in texts.to_pylist()]
        return np.array([self._counts_of(of_text).sum() for of_text in pieces], np.int64)

    def _counts_of(self, pieces: Sequence[str]) -> np.ndarray:
        """(pieces,) number of tokens of each."""
        known = self._counts
        if len(known) > _MOST_PIECES:
            known.clear()
        new = [piece for piece in pieces if piece not in known]
        if new:
            known.update(zip(new, map(len, self._encode(new)), strict=True))
        return np.array([known[piece] for piece in pieces], np.int64)

    def _encode(self, texts: list[str]) -> list[Any]:
        """Something as long as the ids of each text."""
        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        if fast is None:
            return self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        # The tokenizer itself sets these three before each call, and would then build lists that nobody needs here.
        fast.no_padding()
        fast.no_truncation()
        fast.encode_special_tokens = self._tokenizer.split_special_tokens
        return fast.encode_batch_fast(texts, add_special_tokens=False)


def _are_plain(texts: pa.StringArray) -> np.ndarray:
    """(texts,) whether all spaces of each text are single ones between words."""
    odd = pc.or_(
        pc.match_substring(texts, "  "), pc.or_(pc.starts_with(texts, " "), pc.ends_with(texts, " "))
    )
    return ~odd.to_numpy(zero_copy_only=False)


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
