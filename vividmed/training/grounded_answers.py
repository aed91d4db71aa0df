"""Grounded answers to held-out rows, drawn on their images during training."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vividmed.data.batches.grounding import GroundedExample
from vividmed.export.overlay import overlay
from vividmed.processing.grounded_text import GroundedText, Phrase, parse_grounded_text
from vividmed.training.callbacks import SampleAnswers

_NOT_IN_FILE_NAMES = re.compile(r"[^\w-]")

Transform = Callable[[Mapping[str, Any]], GroundedExample]


@dataclass(frozen=True, eq=False)
class GroundedAnswer:
    """One answer of the model with its reference.

    Attributes:
        id: id of the row.
        image: the image as it was read.
        question: the last question of the conversation.
        reference: the reference answer, without markers.
        grounded: the model's answer, with masks and boxes.
    """

    id: str
    image: Any
    question: str
    reference: str
    grounded: GroundedText


@torch.no_grad()
def answer_grounded(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    transform: Transform,
    *,
    max_new_tokens: int,
) -> list[GroundedAnswer]:
    """Answer the last question of each row's conversation, greedily, and find the phrases of the answer.

    Args:
        model: a ``VividMedForCausalLM`` with segmenters, with or without adapters.
        processor: its processor.
        rows: of any kind, images encoded or decoded.
        transform: turns rows into examples.
        max_new_tokens: longest answer in tokens.
    """
    was_training = model.training
    model.eval()
    answers = []
    for row in rows:
        example = transform(row)
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
        rows: rows to answer.
        transform: turns them into examples.
        **options: of the parent.
    """

    folder = "overlays"

    def __init__(
        self, processor: Any, rows: Sequence[Mapping[str, Any]], *, transform: Transform, **options: Any
    ):
        super().__init__(processor, rows, **options)
        self.transform = transform

    def answer(self, model: Any) -> Sequence[GroundedAnswer]:
        return answer_grounded(
            model, self.processor, self.rows, self.transform, max_new_tokens=self.max_new_tokens
        )

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
                "places": list(map(_place, answer.grounded.phrases)),
                "overlay": str(picture.relative_to(run)),
            }


def _place(phrase: Phrase) -> str:
    voxels = 0 if phrase.mask is None else int(phrase.mask.sum())
    return f"{phrase.text}: mask of {voxels} voxels, {len(phrase.boxes)} boxes"
