"""Which parts of the model are never quantised."""

import copy
from typing import Any

# Regular expressions on full names; transformers matches them from the start of a name up to a dot. The head's name
# has no prefix; the vision-language model has one only inside the model with its head.
FULL_PRECISION_MODULES = (
    r"lm_head",
    r"(model\.)?embed_tokens",
    r"(model\.)?vision\.patch_embedding",
    r"(model\.)?vision\.linear_proj",
    r"segmenter",
    r"instance_segmenter",
    r"grounding_projection",
)
"""Embedding and head, whose rows are looked up; the layers through which images enter and reach the decoder; and
everything that grounds, which works in float32. They are a few percent of the weights."""


def keep_full_precision(config: Any) -> Any:
    """A quantisation configuration that leaves the parts above as they are.

    Args:
        config: a ``BitsAndBytesConfig``, as an object or as a dictionary. Another kind, or one that names modules of its
            own to skip, is returned as it is.
    """
    if isinstance(config, dict):
        is_bitsandbytes = config.get("quant_method", "bitsandbytes") == "bitsandbytes" and (
            config.get("load_in_4bit") or config.get("load_in_8bit")
        )
        if not is_bitsandbytes or config.get("llm_int8_skip_modules"):
            return config
        return {**config, "llm_int8_skip_modules": list(FULL_PRECISION_MODULES)}
    if getattr(config, "llm_int8_skip_modules", ()) is not None:
        return config
    config = copy.copy(config)
    config.llm_int8_skip_modules = list(FULL_PRECISION_MODULES)
    return config
