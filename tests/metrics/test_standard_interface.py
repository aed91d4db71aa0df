"""Every metric is an ``evaluate.Metric``: batches added one by one, and metrics combined, give the figures of one call."""

from collections.abc import Callable

import evaluate
import pytest

from tests.metrics.conftest import TEXTS
from tests.metrics.test_learned import annotate
from tests.metrics.test_scoring import grounded
from vividmed.errors import VividMedError
from vividmed.metrics.learned.judge import Judge
from vividmed.metrics.learned.radcliq import RadCliQ
from vividmed.metrics.learned.radgraph import RadGraphF1
from vividmed.metrics.metric import ItemMetric
from vividmed.metrics.names import FIGURES, METRIC_TASKS
from vividmed.metrics.predictions import Prediction
from vividmed.metrics.registry import registry
from vividmed.metrics.wordnet import find_wordnet

WITH_WEIGHTS = {"chexbert": "chexbert", "radbert": "radbert", "bertscore": "encoder"}
"""Fixtures with the weights of metrics."""


class Model:
    """Stands for a language model that finds everything right."""

    def __call__(self, system: str, user: str) -> str:
        return "Analysis: fine. Score: 1"

    def identity(self) -> dict[str, str]:
        return {"model": "made up"}


def predictions(task: str) -> list[Prediction]:
    found = grounded()
    for number, each in enumerate(found):
        each.task = task
        each.question, each.reference = (
            "What is there?",
            f"{TEXTS[number % 3]}. Left pleural effusion of 12 mm.",
        )
        each.prediction = f"{TEXTS[number % 2]}. Pleural effusion."
        if task == "vqa" and number:
            each.reference, each.prediction = "yes", "Yes."
    return found


def make(name: str, place: Callable[[str], str]) -> ItemMetric:
    """A metric; ``place`` gives the folder with the weights of one that needs them."""
    if name == "judge":
        return Judge(chat=Model())
    if name == "radgraph":
        return RadGraphF1(annotator=annotate)
    if name == "radcliq":
        return RadCliQ(chexbert=place("chexbert"), bertscore=place("bertscore"), annotator=annotate)
    if name == "meteor":
        try:
            find_wordnet()
        except VividMedError as error:
            pytest.skip(str(error))
    return registry()[name].make({name: place(name)} if name in WITH_WEIGHTS else {})


@pytest.mark.parametrize("name", list(FIGURES))
def test_batches_and_combinations_give_the_figures_of_one_call(name, request):
    entry = registry()[name]
    metric = make(name, lambda metric: str(request.getfixturevalue(WITH_WEIGHTS[metric])))
    items = entry.select(predictions(METRIC_TASKS[name][0]))
    whole = metric.compute(predictions=items.predicted, references=items.references)
    assert set(FIGURES[name]) <= set(whole)
    assert metric.info.description
    for start in range(0, len(items.predicted), 2):
        part = slice(start, start + 2)
        metric.add_batch(predictions=items.predicted[part], references=items.references[part])
    assert metric.compute() == pytest.approx(whole, nan_ok=True)
    combined = evaluate.combine({"one": metric})
    for pair in zip(items.predicted, items.references, strict=True):
        combined.add(prediction=pair[0], reference=pair[1])
    assert combined.compute() == pytest.approx(whole, nan_ok=True)
