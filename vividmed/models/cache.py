"""The decoder's cache under the names that transformers gives it: ``past_key_values`` up to 5.23, ``cache`` from 5.24.

This is the only place that knows the difference. The model takes both names and returns the library's own.
"""

from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from vividmed.errors import VividMedError

CACHE_NAMES = ("past_key_values", "cache")
CACHE_NAME = (
    "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
)


def as_cache_argument(cache: Cache | None) -> dict[str, Any]:
    """The cache as a keyword argument of the library's functions and outputs."""
    return {CACHE_NAME: cache}


def single_cache(past_key_values: Cache | None, cache: Cache | None) -> Cache | None:
    """The cache that was passed under either name.

    Raises:
        VividMedError: both names were used.
    """
    if past_key_values is not None and cache is not None:
        raise VividMedError("cache and past_key_values are two names of one argument: pass only one of them")
    return past_key_values if cache is None else cache
