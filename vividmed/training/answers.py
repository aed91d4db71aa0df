"""Answering held-out questions, and scoring those that have one right answer."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vividmed.data.batches.examples import to_example

CLOSED_KINDS = ("modality", "plane", "presence")
_LISTED = re.compile(r"([^:,.]+):\s*(yes|no)\b", re.IGNORECASE)


def question_and_reference(row: Mapping[str, Any]) -> tuple[str, str]:
    """The first question of a row and its answer."""
    contents = [message["content"] for message in row["messages"]]
    return contents[0], contents[1]


@torch.no_grad()
def generate_answers(
    model: Any, processor: Any, rows: Iterable[Mapping[str, Any]], *, max_new_tokens: int, batch_size: int = 8
) -> list[str]:
    """Answer the first question of each row, greedily.

    Args:
        model: a ``VividMedForCausalLM``, with or without adapters.
        processor: its processor.
        rows: vision-language rows.
        max_new_tokens: longest answer in tokens.
        batch_size: number of questions answered at once.
    """
    was_training = model.training
    model.eval()
    answers: list[str] = []
    examples = [to_example(row) for row in rows]
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        batch = processor(
            images=[example["images"] for example in chosen],
            conversations=[example["messages"][:1] for example in chosen],
            return_tensors="pt",
        )
        batch = batch.to(model.device)
        generated = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        new = generated[:, batch["input_ids"].shape[1] :]
        answers += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    model.train(was_training)
    return answers


@dataclass(frozen=True)
class Accuracy:
    """Number of correct answers out of a total."""

    correct: int
    total: int

    def __str__(self) -> str:
        share = f"{100 * self.correct / self.total:.1f} %" if self.total else "no questions"
        return f"{self.correct}/{self.total} ({share})"


def score_closed(rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, Accuracy]:
    """Accuracy on each kind of question that has one right answer.

    A question for modality or plane counts once: the answer must equal the reference except for case, spaces and the final stop. A
    presence question counts once for each structure it asks for: the answer must say ``liver: yes`` where the reference
    does.
    """
    correct = dict.fromkeys(CLOSED_KINDS, 0)
    total = dict.fromkeys(CLOSED_KINDS, 0)
    for row, answer in zip(rows, answers, strict=True):
        kind = row["kind"]
        if kind not in CLOSED_KINDS:
            continue
        reference = question_and_reference(row)[1]
        said, wanted = _claims(answer, kind), _claims(reference, kind)
        total[kind] += len(wanted)
        correct[kind] += sum(said.get(claim) == value for claim, value in wanted.items())
    return {kind: Accuracy(correct[kind], total[kind]) for kind in CLOSED_KINDS if total[kind]}


def _claims(text: str, kind: str) -> dict[str, str]:
    """Statements of a text: yes or no per structure, or the whole text for other kinds of question."""
    if kind == "presence" and (listed := _LISTED.findall(text.removeprefix("Results:"))):
        return {_plain(name): value.lower() for name, value in listed}
    return {"": _plain(text)}


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
