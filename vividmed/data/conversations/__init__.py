"""Turns rows into questions and answers."""

from vividmed.data.conversations.build import build_conversation
from vividmed.data.conversations.conversation import Conversation, PhraseTarget, sample_generator

__all__ = ["Conversation", "PhraseTarget", "build_conversation", "sample_generator"]
