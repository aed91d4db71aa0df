"""All metrics by name: how each is made, and which parts of predictions it scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics import selection
from vividmed.metrics.metric import ItemMetric
from vividmed.metrics.names import METRIC_TASKS, SOURCES, expand
from vividmed.metrics.predictions import Prediction

Select = Callable[[Sequence[Prediction]], selection.Selection]
"""Items of a metric."""


@dataclass(frozen=True)
class Entry:
    """A metric of the registry.

    Attributes:
        make: constructor; its argument has the places of weights and endpoints, by name of the metric.
        select: what it scores.
        by_group: whether each target and each modality also have figures of their own.
    """

    make: Callable[[Mapping[str, str]], ItemMetric]
    select: Select
    by_group: bool = False


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
        "bleu": Entry(lambda _: Bleu(), selection.texts),
        "rouge": Entry(lambda _: Rouge(), selection.texts),
        "cider": Entry(lambda _: Cider(), selection.texts),
        "meteor": Entry(lambda _: Meteor(), selection.texts),
        "bertscore": Entry(
            lambda places: _learned("bertscore", "BertScore")(places["bertscore"]), selection.texts
        ),
        "findings": Entry(lambda _: FindingF1(), selection.texts),
        "laterality": Entry(lambda _: Laterality(), selection.texts),
        "chexbert": Entry(
            lambda places: _learned("chexbert", "CheXbert")(places["chexbert"]), selection.texts
        ),
        "radgraph": Entry(
            lambda places: _learned("radgraph", "RadGraphF1")(places["radgraph"]), selection.texts
        ),
        "radcliq": Entry(
            lambda places: _learned("radcliq", "RadCliQ")(**{name: places[name] for name in RADCLIQ_PARTS}),
            selection.texts,
        ),
        "radbert": Entry(
            lambda places: _learned("radbert", "RadBERT")(places["radbert"], labels=places.get("labels")),
            selection.texts_with_ids,
        ),
        "judge": Entry(lambda places: _learned("judge", "Judge")(places["judge"]), selection.answers),
        "exact_match": Entry(lambda _: ExactMatch(), selection.texts),
        "token_f1": Entry(lambda _: TokenF1(), selection.texts),
        "accuracy": Entry(lambda _: Accuracy(), selection.texts),
        "segmentation": Entry(lambda _: Segmentation(), selection.masks, by_group=True),
        "detection": Entry(lambda _: Detection(), selection.boxes, by_group=True),
        "grounding": Entry(lambda _: PhraseGrounding(), selection.places),
        "radfact": Entry(
            lambda places: RadFact(
                entailment=_learned("judge", "LanguageModelEntailment")(places["radfact"])
                if "radfact" in places
                else None
            ),
            selection.reports,
        ),
        "agreement": Entry(lambda _: Agreement(), selection.reports_with_text),
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
