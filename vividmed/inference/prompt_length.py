"""Longest text that a model reads."""

from collections.abc import Mapping
from typing import Any

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig


def check_prompt_length(config: VividMedConfig, batch: Mapping[str, Any]) -> None:
    """Check that a batch has no more positions than the model was made for.

    Args:
        config: of the model.
        batch: of the processor; all tokens of an image count as a few positions.

    Raises:
        VividMedError: it has more.
    """
    longest, limit = int(batch["position_ids"].max()) + 1, config.text_config.max_position_embeddings
    if longest > limit:
        raise VividMedError(
            f"the text takes {longest:,} positions with its image and what was said before, but the model reads at most "
            f"{limit:,}; shorten it"
        )
