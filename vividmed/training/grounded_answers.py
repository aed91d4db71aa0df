"""Answers with places to held-out rows, drawn into pictures while training goes on."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vividmed.data.batches.grounding import GroundedExample
from vividmed.export.overlay import overlay
from vividmed.processing.grounded_text import GroundedText, parse_grounded_text
from vividmed.training.callbacks import SampleAnswers

_NOT_IN_FILE_NAMES = re.compile(r"[^\w-]")

Read = Callable[[Mapping[str, Any]], GroundedExample]


@dataclass(frozen=True, eq=False)
class GroundedAnswer:
    """One answer of the model beside what it should have been.

    Attributes:
        id: of the row.
        image: as it was read.
        question: the last one of the conversation.
        reference: its answer, without markers.
        grounded: the model's answer.
    """

    id: str
    image: Any
    question: str
    reference: str
    grounded: GroundedText


@torch.no_grad()
def answer_grounded(
    model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], read: Read, *, max_new_tokens: int
) -> list[GroundedAnswer]:
    """Answer the last question of each row's conversation, greedily, and find the phrases of the answer.

    Args:
        model: a ``VividMedForCausalLM`` with segmenters, with or without adapters.
        processor: its processor.
        rows: of any kind, images encoded or decoded.
        read: turns rows into examples.
        max_new_tokens: longest answer.
    """
    was_training = model.training
    model.eval()
    answers = []
    for row in rows:
        example = read(row)
        *asked, answer = example.messages
        batch = processor(images=[example.images], conversations=[asked], grounding=True).to(model.device)
        (grounded,) = model.generate_grounded(
            **batch, processor=processor, max_new_tokens=max_new_tokens, do_sample=False
        )
        reference = parse_grounded_text(answer["content"]).text
        answers.append(
            GroundedAnswer(row["id"], example.images[0], asked[-1]["content"], reference, grounded)
        )
    model.train(was_training)
    return answers


class SampleOverlays(SampleAnswers):
    """Also draws the answers on their images, into ``overlays/step-N/ROW.png``.

    Args:
        processor: a ``VividMedProcessor``.
        rows: to answer.
        read: turns them into examples.
        max_new_tokens: longest answer.
    """

    folder = "overlays"

    def __init__(self, processor: Any, rows: Sequence[Mapping[str, Any]], read: Read, *, max_new_tokens: int):
        super().__init__(processor, rows, max_new_tokens)
        self.read = read
        self.answers: list[GroundedAnswer] = []

    def answer(self, model: Any) -> Sequence[GroundedAnswer]:
        self.answers = answer_grounded(
            model, self.processor, self.rows, self.read, max_new_tokens=self.max_new_tokens
        )
        return self.answers

    def records(self, answers: Sequence[GroundedAnswer], run: Path, step: int) -> Iterator[dict[str, Any]]:
        for answer in answers:
            name = _NOT_IN_FILE_NAMES.sub("_", answer.id)
            picture = run / self.folder / f"step-{step}" / f"{name}.png"
            overlay(answer.image, answer.grounded, picture)
            yield {
                "id": answer.id,
                "question": answer.question,
                "reference": answer.reference,
                "answer": answer.grounded.text,
                "phrases": [phrase.text for phrase in answer.grounded.phrases],
                "overlay": str(picture.relative_to(run)),
            }
