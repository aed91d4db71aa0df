"""Predictions in, a table of figures with intervals out."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics.bootstrap import Interval, bootstrap, compare
from vividmed.metrics.learned.chat import is_endpoint, is_on_this_machine
from vividmed.metrics.metric import ItemMetric
from vividmed.metrics.predictions import Prediction, match_predictions
from vividmed.metrics.registry import Entry, choose
from vividmed.metrics.selection import Group

LIBRARIES = ("sacrebleu", "rouge-score", "nltk", "monai", "numpy", "scipy", "evaluate")


@dataclass(kw_only=True)
class Scores:
    """Figures of a set of predictions.

    Attributes:
        figures: by name; those of a part of the items end in ``/`` and the name of their group.
        counts: number of scored items by figure.
        groups: target and modality of the figures of a part of the items.
        items: predictions in all.
        patients: patients in all.
        failures: predictions that failed; they count as empty.
        skipped: metrics that were left out, with the reason.
        settings: resamples, seed and library versions.
        scorers: what metrics with weights were made of: places, hashes, model names.
    """

    figures: dict[str, Interval] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    items: int = 0
    patients: int = 0
    failures: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    scorers: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def score(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    by_group: bool = True,
    labels: str | None = None,
) -> Scores:
    """Score predictions.

    Args:
        predictions: of one task.
        metrics: names as for :func:`vividmed.metrics.registry.choose`; all that fit the task and need no weights by
            default.
        samples: bootstrap resamples of patients.
        seed: random seed of the resamples.
        by_group: also score each target and each modality of task ``ground``.
        labels: table of labels of the references, for ``radbert``.

    Raises:
        VividMedError: a name is unknown, does not fit the task, or the predictions are of several tasks.
    """
    entries, sources = _entries(predictions, metrics, labels)
    scores = _empty(predictions, samples, seed)
    for name, entry in entries.items():
        selected = entry.select(predictions)
        if not selected.predicted:
            scores.skipped[name] = "no item has what it scores"
            continue
        try:
            metric = entry.make(sources)
            items = metric.score_items(selected.predicted, selected.references)
        except VividMedError as error:
            if metrics is not None:
                raise
            scores.skipped[name] = str(error)
            continue
        if scorer := metric.scorer():
            scores.scorers[name] = scorer
        groups = {Group(): list(range(len(items)))}
        if by_group and entry.by_group:
            groups |= selected.groups()
        for group, numbers in groups.items():
            members = [items[number] for number in numbers]
            patients = [selected.patients[number] for number in numbers]
            _add_figures(scores, metric, members, patients, group)
    return scores


def _add_figures(
    scores: Scores, metric: ItemMetric, items: Sequence[Any], patients: Sequence[str], group: Group
) -> None:
    """Add the figures of a group of items; a part of the items only if it has any."""
    options = {"samples": scores.settings["bootstrap samples"], "seed": scores.settings["seed"]}
    figures = bootstrap(metric, items, patients, **options)
    is_part = group != Group()
    if is_part and all(math.isnan(interval.value) for interval in figures.values()):
        return
    for figure, interval in figures.items():
        key = f"{figure}/{group}" if is_part else figure
        scores.figures[key] = interval
        scores.counts[key] = metric.count(items, figure)
        if is_part:
            scores.groups[key] = group


def score_difference(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    labels: str | None = None,
) -> Scores:
    """Differences ``second - first`` with paired intervals, over the items that both have.

    Raises:
        VividMedError: the two share no item, or as :func:`score`.
    """
    first, second = match_predictions(first, second)
    entries, sources = _entries(first, metrics, labels)
    scores = _empty(first, samples, seed)
    for name, entry in entries.items():
        sides = [entry.select(side) for side in (first, second)]
        if not sides[0].predicted:
            scores.skipped[name] = "no item has what it scores"
            continue
        try:
            metric = entry.make(sources)
            items = [metric.score_items(side.predicted, side.references) for side in sides]
        except VividMedError as error:
            if metrics is not None:
                raise
            scores.skipped[name] = str(error)
            continue
        if scorer := metric.scorer():
            scores.scorers[name] = scorer
        differences = compare(metric, items[0], items[1], sides[0].patients, samples=samples, seed=seed)
        scores.figures |= differences
        scores.counts |= {figure: metric.count(items[0], figure) for figure in differences}
    return scores


def _entries(
    predictions: Sequence[Prediction], metrics: Sequence[str] | None, labels: str | None
) -> tuple[dict[str, Entry], dict[str, str]]:
    entries, sources = choose(_task(predictions), metrics)
    if labels is not None:
        if "radbert" not in entries:
            raise VividMedError(
                "--labels has no effect without the metric radbert; add radbert=PLACE, or leave it out"
            )
        sources["labels"] = labels
    for name, place in sources.items():
        if is_endpoint(place) and not is_on_this_machine(place):
            _refuse_credentialed(predictions, name, place)
    return entries, sources


def _refuse_credentialed(predictions: Sequence[Prediction], name: str, place: str) -> None:
    """Stop before texts of credentialed data leave the machine."""
    from vividmed.data.known_terms import known_terms

    restricted = {
        title: terms.name
        for terms in known_terms()
        if terms.access == "credentialed"
        for title in (terms.name, terms.source)
    }
    for source in {prediction.source for prediction in predictions}:
        if source and source in restricted:
            raise VividMedError(
                f"{name}={place}: the predictions are about {restricted[source]}, whose terms forbid sending it to others; use "
                "a local model, or an endpoint on this machine"
            )


def _task(predictions: Sequence[Prediction]) -> str:
    tasks = {prediction.task for prediction in predictions}
    if len(tasks) != 1:
        raise VividMedError(
            f"the predictions are of {len(tasks)} tasks ({', '.join(sorted(tasks))}); score one at a time"
        )
    return tasks.pop()


def _empty(predictions: Sequence[Prediction], samples: int, seed: int) -> Scores:
    return Scores(
        items=len(predictions),
        patients=len({prediction.patient for prediction in predictions}),
        failures=sum(prediction.failure is not None for prediction in predictions),
        settings={
            "bootstrap samples": samples,
            "seed": seed,
            "Python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    )
