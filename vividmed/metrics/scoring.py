"""Predictions in, a table of figures with intervals out."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics.bootstrap import Interval, bootstrap, compare
from vividmed.metrics.learned.chat import is_endpoint, is_on_this_machine
from vividmed.metrics.predictions import Prediction, match_predictions
from vividmed.metrics.registry import Entry, choose

LIBRARIES = ("sacrebleu", "rouge-score", "nltk", "monai", "numpy", "scipy", "evaluate")


@dataclass(kw_only=True)
class Scores:
    """Figures of a set of predictions.

    Attributes:
        figures: by name; names of single targets end in ``/TARGET``.
        counts: number of scored items by figure.
        items: predictions in all.
        patients: patients in all.
        failures: predictions that failed; they count as empty.
        skipped: metrics that were left out, with the reason.
        settings: resamples, seed and library versions.
        scorers: what metrics with weights were made of: places, hashes, model names.
    """

    figures: dict[str, Interval] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
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
    by_target: bool = True,
    labels: str | None = None,
) -> Scores:
    """Score predictions.

    Args:
        predictions: of one task.
        metrics: names as for :func:`vividmed.metrics.registry.choose`; all that fit the task and need no weights by
            default.
        samples: bootstrap resamples of patients.
        seed: random seed of the resamples.
        by_target: also score each target of task ``ground``.
        labels: table of labels of the references, for ``radbert``.

    Raises:
        VividMedError: a name is unknown, does not fit the task, or the predictions are of several tasks.
    """
    entries, sources = _entries(predictions, metrics, labels)
    scores = _empty(predictions, samples, seed)
    for name, entry in entries.items():
        groups = {"": list(predictions)}
        if by_target and entry.by_target:
            groups |= _by_target(predictions)
        if not entry.select(groups[""])[0]:
            scores.skipped[name] = "no item has what it scores"
            continue
        try:
            for target, group in groups.items():
                _score_group(scores, entry, sources, group, target, name)
        except VividMedError as error:
            if metrics is not None:
                raise
            scores.skipped[name] = str(error)
    return scores


def _score_group(
    scores: Scores,
    entry: Entry,
    sources: Mapping[str, str],
    group: Sequence[Prediction],
    target: str,
    name: str,
) -> None:
    predicted, references, patients = entry.select(group)
    if not predicted:
        return
    metric = entry.make(sources)
    items = metric.score_items(predicted, references)
    if scorer := metric.scorer():
        scores.scorers[name] = scorer
    options = {"samples": scores.settings["bootstrap samples"], "seed": scores.settings["seed"]}
    for figure, interval in bootstrap(metric, items, patients, **options).items():
        key = f"{figure}/{target}" if target else figure
        scores.figures[key] = interval
        scores.counts[key] = metric.count(items, figure)


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
        if not sides[0][0]:
            scores.skipped[name] = "no item has what it scores"
            continue
        try:
            metric = entry.make(sources)
            items = [metric.score_items(predicted, references) for predicted, references, _ in sides]
        except VividMedError as error:
            if metrics is not None:
                raise
            scores.skipped[name] = str(error)
            continue
        if scorer := metric.scorer():
            scores.scorers[name] = scorer
        differences = compare(metric, items[0], items[1], sides[0][2], samples=samples, seed=seed)
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


def _by_target(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """For each target, predictions with its phrases only."""
    groups: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        for phrase, reference in zip(prediction.phrases, prediction.references, strict=True):
            single = Prediction(**{**vars(prediction), "phrases": [phrase], "references": [reference]})
            groups.setdefault(reference.target, []).append(single)
    return dict(sorted(groups.items()))
