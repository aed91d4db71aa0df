"""All metrics by name: how each is made, and which parts of predictions it scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics.masks import empty_mask
from vividmed.metrics.metric import ItemMetric
from vividmed.metrics.names import METRIC_TASKS, SOURCES, expand
from vividmed.metrics.predictions import Prediction

Select = Callable[[Sequence[Prediction]], tuple[list[Any], list[Any], list[str]]]
"""Predictions and references of a metric, and the patient of each."""


@dataclass(frozen=True)
class Entry:
    """A metric of the registry.

    Attributes:
        make: constructor; its argument has the places of weights and endpoints, by name of the metric.
        select: what it scores.
        by_target: whether each target also has figures of its own.
    """

    make: Callable[[Mapping[str, str]], ItemMetric]
    select: Select
    by_target: bool = False


def _learned(module: str, name: str) -> Any:
    """A class of :mod:`vividmed.metrics.learned`, whose imports take seconds."""
    return getattr(import_module(f"vividmed.metrics.learned.{module}"), name)


def registry() -> dict[str, Entry]:
    """All metrics by name."""
    from vividmed.metrics.clinical import FindingF1
    from vividmed.metrics.detection import Detection
    from vividmed.metrics.grounding import PhraseGrounding, RadFact
    from vividmed.metrics.segmentation import Segmentation
    from vividmed.metrics.statements import Agreement, Laterality
    from vividmed.metrics.text import Bleu, Cider, Meteor, Rouge
    from vividmed.metrics.vqa import Accuracy, ExactMatch, TokenF1

    return {
        "bleu": Entry(lambda _: Bleu(), _texts),
        "rouge": Entry(lambda _: Rouge(), _texts),
        "cider": Entry(lambda _: Cider(), _texts),
        "meteor": Entry(lambda _: Meteor(), _texts),
        "bertscore": Entry(lambda places: _learned("bertscore", "BertScore")(places["bertscore"]), _texts),
        "findings": Entry(lambda _: FindingF1(), _texts),
        "laterality": Entry(lambda _: Laterality(), _texts),
        "chexbert": Entry(lambda places: _learned("chexbert", "CheXbert")(places["chexbert"]), _texts),
        "radgraph": Entry(lambda places: _learned("radgraph", "RadGraphF1")(places["radgraph"]), _texts),
        "radcliq": Entry(
            lambda places: _learned("radcliq", "RadCliQ")(**{name: places[name] for name in RADCLIQ_PARTS}),
            _texts,
        ),
        "radbert": Entry(
            lambda places: _learned("radbert", "RadBERT")(places["radbert"], labels=places.get("labels")),
            _texts_with_ids,
        ),
        "judge": Entry(lambda places: _learned("judge", "Judge")(places["judge"]), _answers),
        "exact_match": Entry(lambda _: ExactMatch(), _texts),
        "token_f1": Entry(lambda _: TokenF1(), _texts),
        "accuracy": Entry(lambda _: Accuracy(), _texts),
        "segmentation": Entry(lambda _: Segmentation(), _masks, by_target=True),
        "detection": Entry(lambda _: Detection(), _boxes, by_target=True),
        "grounding": Entry(lambda _: PhraseGrounding(), _places),
        "radfact": Entry(
            lambda places: RadFact(
                entailment=_learned("judge", "LanguageModelEntailment")(places["radfact"])
                if "radfact" in places
                else None
            ),
            _reports,
        ),
        "agreement": Entry(lambda _: Agreement(), _reports_with_text),
    }


RADCLIQ_PARTS = ("chexbert", "radgraph", "bertscore")
"""Metrics whose places RadCliQ needs."""


def choose(task: str, metrics: Sequence[str] | None) -> tuple[dict[str, Entry], dict[str, str]]:
    """Metrics that are asked for.

    Args:
        task: of the predictions.
        metrics: names of metrics or families, ``NAME=PLACE`` for those that need weights; None for all that fit the task
            and need none.

    Returns:
        The metrics by name, and the places by name.

    Raises:
        VividMedError: a name is unknown or does not fit the task, or a place is missing or not needed.
    """
    known = registry()
    fitting = [name for name in known if task in METRIC_TASKS[name]]
    if metrics is None:
        return {name: known[name] for name in fitting if name not in SOURCES and name != "radcliq"}, {}
    sources: dict[str, str] = {}
    names = []
    for given in metrics:
        name, assigned, place = given.partition("=")
        names.append(name)
        if assigned:
            sources[name] = place
    chosen: dict[str, None] = {}
    for given in names:
        members = expand([given], where="--metrics")
        # Of a family, only what fits the task; a metric by its own name must fit.
        chosen |= dict.fromkeys([name for name in members if name in fitting] or members[:1])
    for name in chosen:
        if name not in fitting:
            raise VividMedError(
                f"--metrics: {name!r} does not fit the task {task}; use one of {', '.join(fitting)}"
            )
        if name in SOURCES and not sources.get(name):
            raise VividMedError(f"--metrics {name}: needs {SOURCES[name]}; give it as {name}=PLACE")
    if "radcliq" in chosen and (missing := [part for part in RADCLIQ_PARTS if not sources.get(part)]):
        raise VividMedError(
            f"--metrics radcliq: is made of {', '.join(RADCLIQ_PARTS)}; also give {', '.join(f'{each}=PLACE' for each in missing)}"
        )
    for name in sources:
        if name not in SOURCES and name != "radfact":
            raise VividMedError(f"--metrics {name}={sources[name]}: {name} takes no place; leave it out")
    return {name: known[name] for name in chosen}, sources


def _texts(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    return (
        [prediction.prediction for prediction in predictions],
        [prediction.reference for prediction in predictions],
        [prediction.patient for prediction in predictions],
    )


def _texts_with_ids(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    found, _, patients = _texts(predictions)
    return found, [{"id": each.id, "text": each.reference} for each in predictions], patients


def _answers(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    found, _, patients = _texts(predictions)
    return found, [{"question": each.question, "answer": each.reference} for each in predictions], patients


def _reports_with_text(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    """Reports with their phrases, and the direction of the patient's left."""
    found, true, patients = _reports(predictions)
    for each, said, wanted in zip(predictions, found, true, strict=True):
        said |= {"text": each.prediction, "left": each.left}
        wanted |= {"text": each.reference, "left": each.left}
    return found, true, patients


def _pairs(predictions: Sequence[Prediction]) -> list[tuple[Any, Any, Prediction]]:
    return [
        (phrase, reference, prediction)
        for prediction in predictions
        for phrase, reference in zip(prediction.phrases, prediction.references, strict=True)
    ]


def _masks(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    """Masks of present targets; a phrase without a mask is an empty one."""
    found, true, patients = [], [], []
    for phrase, reference, prediction in _pairs(predictions):
        if reference.mask is not None:
            found.append(phrase.mask or empty_mask(reference.mask))
            true.append(reference.mask)
            patients.append(prediction.patient)
    return found, true, patients


def _boxes(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    """Boxes of targets that have boxes, and of absent ones, whose predictions are false positives."""
    found, true, patients = [], [], []
    for phrase, reference, prediction in _pairs(predictions):
        if reference.mask is None:
            found.append({"boxes": phrase.boxes, "scores": phrase.scores})
            true.append({"boxes": reference.boxes, "target": reference.target})
            patients.append(prediction.patient)
    return (found, true, patients) if any(each["boxes"] for each in true) else ([], [], [])


def _places(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    pairs = _pairs(predictions)
    return (
        [phrase.place for phrase, _, _ in pairs],
        [reference.place for _, reference, _ in pairs],
        [prediction.patient for _, _, prediction in pairs],
    )


def _reports(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    sides = [
        [
            {
                "phrases": [phrase.text for phrase in phrases],
                "places": [phrase.place for phrase in phrases],
                "size": prediction.size,
            }
            for prediction in predictions
            for phrases in [getattr(prediction, name)]
        ]
        for name in ("phrases", "references")
    ]
    return sides[0], sides[1], [prediction.patient for prediction in predictions]
