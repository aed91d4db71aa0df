"""Rows to conversations, in the answer formats that the model was published with.

Every choice comes from the generator that the caller gives. Made by
:func:`~vividmed.data.conversations.conversation.sample_generator` from (seed, epoch, index), it gives the same sample
for any number of workers and after any interruption.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vividmed.data.conversations.conversation import Conversation
from vividmed.data.conversations.grounded_report import grounded_report_conversation
from vividmed.data.conversations.localization import localization_conversation
from vividmed.data.conversations.settings import ConversationSettings
from vividmed.data.conversations.vision_language import vision_language_conversation
from vividmed.errors import VividMedError


def build_conversation(
    row_kind: str,
    row: Mapping[str, Any],
    *,
    generator: np.random.Generator,
    settings: ConversationSettings | None = None,
) -> Conversation:
    """Draw a conversation about a row of any kind; no image and no mask is decoded.

    Args:
        row_kind: ``localization``, ``vision_language`` or ``grounded_report``.
        row: a row of :mod:`vividmed.data.schema`.
        generator: source of randomness, see :func:`~vividmed.data.conversations.conversation.sample_generator`.
        settings: None for the published ones.

    Raises:
        VividMedError: the kind of row is unknown, a target is not in the taxonomy, or the row has nothing to ask for.
    """
    settings = settings or ConversationSettings()
    try:
        if row_kind == "localization":
            return localization_conversation(row, generator=generator, settings=settings.localization)
        if row_kind == "vision_language":
            return vision_language_conversation(row, generator=generator, settings=settings.vision_language)
        if row_kind == "grounded_report":
            return grounded_report_conversation(row, generator=generator, settings=settings.grounded_report)
    except VividMedError as error:
        raise VividMedError(f"row {row.get('id') or '(without id)'}: {error}") from error
    raise VividMedError(
        f"{row_kind!r} is not a kind of row; use localization, vision_language or grounded_report"
    )
