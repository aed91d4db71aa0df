"""A language model as judge: of answers, and of whether a phrase is supported by others."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from vividmed.metrics.learned.chat import Chat, open_chat
from vividmed.metrics.metric import MeanMetric

_SYSTEM = "You are an expert in radiology who grades answers to questions about medical images."
_QUESTION = """Question: {question}
Correct answer: {reference}
Given answer: {prediction}

Does the given answer state the same as the correct one? Other wording and further true details do no harm. Explain your
decision in one sentence, then give 1 for yes or 0 for no, in this form:
Analysis: ...
Score: 0 or 1"""
_SCORE = re.compile(r"score\s*\**\s*:\s*\**\s*([01])(?:\.0+)?(?![\d.]*\d)", re.IGNORECASE)

_ENTAILMENT_SYSTEM = (
    "You are an expert in radiology who checks whether findings of one report are supported by another."
)
_ENTAILMENT = """Statements:
{statements}

Hypothesis: {phrase}

Which statements support the hypothesis, so that it must be true if they are? Presence, side, place and kind must agree.
Answer with the numbers of the statements only, separated by commas, or with the word none.
Answer:"""


class Judge(MeanMetric):
    """Share of answers that a language model holds to be right.

    ``judge``: 1 or 0 per answer; an answer of the judge that gives neither counts as 0.
    ``judge_unparsed``: share of such answers.

    Each reference is ``{"question": ..., "answer": ...}``.

    Args:
        place: see :func:`vividmed.metrics.learned.chat.open_chat`.
        chat: the model; that of the place by default.
    """

    description = "correct answers by a language model"
    features = datasets.Features(
        {
            "predictions": datasets.Value("string"),
            "references": {"question": datasets.Value("string"), "answer": datasets.Value("string")},
        }
    )

    def __init__(self, place: str = "", *, chat: Chat | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.chat = chat or open_chat(place, what="judge")

    def scorer(self) -> Mapping[str, Any]:
        return {**self.chat.identity(), "prompt sha256": _hash(_SYSTEM + _QUESTION)}

    def score_item(self, prediction: str, reference: Mapping[str, str]) -> dict[str, float]:
        if not prediction.strip():
            return {"judge": 0.0, "judge_unparsed": 0.0}
        user = _QUESTION.format(
            question=reference["question"], reference=reference["answer"], prediction=prediction
        )
        score = _SCORE.search(self.chat(_SYSTEM, user))
        return {
            "judge": 0.0 if score is None else float(score.group(1)),
            "judge_unparsed": float(score is None),
        }


class LanguageModelEntailment:
    """Judge of RadFact: a language model names the phrases that support another one.

    A phrase whose judgement cannot be read counts as not entailed; :attr:`unparsed` counts them.

    Args:
        place: see :func:`vividmed.metrics.learned.chat.open_chat`.
        chat: the model; that of the place by default.
    """

    def __init__(self, place: str = "", *, chat: Chat | None = None):
        self.chat = chat or open_chat(place, what="radfact", max_new_tokens=32)
        self.name = f"language model {self.chat.identity().get('model', '')}".strip()
        self.asked = 0
        self.unparsed = 0

    def __call__(self, phrase: str, others: Sequence[str]) -> list[int]:
        if not others:
            return []
        statements = "\n".join(f"{number}. {other}" for number, other in enumerate(others, start=1))
        answer = self.chat(_ENTAILMENT_SYSTEM, _ENTAILMENT.format(statements=statements, phrase=phrase))
        self.asked += 1
        numbers = [int(word) for word in re.findall(r"\d+", answer)]
        known = [number - 1 for number in numbers if 0 < number <= len(others)]
        if not known and not re.search(r"\bnone\b", answer, re.IGNORECASE):
            self.unparsed += 1
        return sorted(set(known))

    def identity(self) -> Mapping[str, Any]:
        """Model, prompt and number of judgements that could not be read."""
        return {
            **self.chat.identity(),
            "prompt sha256": _hash(_ENTAILMENT_SYSTEM + _ENTAILMENT),
            "judgements": self.asked,
            "unparsed": self.unparsed,
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
