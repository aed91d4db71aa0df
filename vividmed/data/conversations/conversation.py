"""A conversation about an image, and what each of its phrases is to be grounded in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vividmed.data.conversations.settings import LabelType
from vividmed.errors import VividMedError


@dataclass(frozen=True, kw_only=True)
class PhraseTarget:
    """Targets and label type of one phrase of a conversation.

    Attributes:
        text: the phrase without markers.
        targets: names as the row's ``masks`` and ``boxes`` columns have them. The phrase's mask is the union of their
            masks; its boxes are all of their boxes.
        present: False for a phrase about something that is not there: an empty mask, or no box.
        label_type: type of the label; None where the phrase has no label and adds no grounding loss.
    """

    text: str
    targets: tuple[str, ...]
    present: bool
    label_type: LabelType | None

    @property
    def labelled(self) -> bool:
        """Whether the phrase has a label: its entry in the published ``vg_label_mask``."""
        return self.label_type is not None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation about the images of one row, as the processor takes it.

    Attributes:
        messages: ``{"role": "user" | "assistant", "content": text}``, questions and answers in turns; answers contain
            phrase markers.
        phrases: one entry per phrase end marker, in the order of the text.
        grounding: whether the answers are to be grounded.
    """

    messages: list[dict[str, str]]
    phrases: list[PhraseTarget]
    grounding: bool

    @classmethod
    def from_turns(
        cls, turns: Sequence[tuple[str, str]], phrases: list[PhraseTarget], *, grounding: bool
    ) -> "Conversation":
        """Build a conversation from pairs of question and answer.

        Raises:
            VividMedError: there is no turn.
        """
        if not turns:
            raise VividMedError(
                "it has neither targets nor a modality to ask for; fill 'targets', 'absent' or 'modality'"
            )
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        return cls(messages=messages, phrases=phrases, grounding=grounding)


def sample_generator(*, seed: int, epoch: int, index: int) -> np.random.Generator:
    """The source of all randomness of one sample."""
    return np.random.default_rng((seed, epoch, index))
