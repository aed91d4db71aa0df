"""Rows in, questions and answers out."""

from vividmed.data.conversations.build import (
    Conversation,
    PhraseTarget,
    build_conversation,
    sample_generator,
)

__all__ = ["Conversation", "PhraseTarget", "build_conversation", "sample_generator"]
