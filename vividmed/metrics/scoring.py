"""Predictions in, a table of figures with intervals out."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics.bootstrap import Interval, bootstrap, compare
from vividmed.metrics.metric import ItemMetric
from vividmed.metrics.predictions import Prediction, match_predictions

Select = Callable[[Sequence[Prediction]], tuple[list[Any], list[Any], list[str]]]
"""Predictions and references of a metric, and the patient of each."""

LIBRARIES = ("sacrebleu", "rouge-score", "nltk", "monai", "numpy", "scipy", "evaluate")


@dataclass(frozen=True)
class Family:
    """Metrics that are asked for by one name.

    Attributes:
        tasks: they apply to.
        metrics: constructors.
        select: what they score.
    """

    tasks: tuple[str, ...]
    metrics: tuple[Callable[[], ItemMetric], ...]
    select: Select


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
    """

    figures: dict[str, Interval] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    items: int = 0
    patients: int = 0
    failures: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def families() -> dict[str, Family]:
    """All families of metrics by name."""
    from vividmed.metrics.clinical import FindingF1
    from vividmed.metrics.detection import Detection
    from vividmed.metrics.grounding import PhraseGrounding, RadFact
    from vividmed.metrics.segmentation import Segmentation
    from vividmed.metrics.text import Bleu, Cider, Meteor, Rouge
    from vividmed.metrics.vqa import Accuracy, ExactMatch, TokenF1

    texts = ("vqa", "report", "grounded-report")
    return {
        "text": Family(texts, (Bleu, Rouge, Cider), _texts),
        "meteor": Family(texts, (Meteor,), _texts),
        "findings": Family(("report", "grounded-report"), (FindingF1,), _texts),
        "vqa": Family(("vqa",), (ExactMatch, TokenF1, Accuracy), _texts),
        "segmentation": Family(("ground",), (Segmentation,), _masks),
        "detection": Family(("ground",), (Detection,), _boxes),
        "grounding": Family(("ground",), (PhraseGrounding,), _places),
        "radfact": Family(("grounded-report",), (RadFact,), _reports),
    }


def score(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    by_target: bool = True,
) -> Scores:
    """Score predictions.

    Args:
        predictions: of one task.
        metrics: names of :func:`families`; all that fit the task by default.
        samples: bootstrap resamples of patients.
        seed: of the resamples.
        by_target: also score each target of task ``ground``.

    Raises:
        VividMedError: a name is unknown, does not fit the task, or the predictions are of several tasks.
    """
    scores = _empty(predictions, samples, seed)
    for name, family in _chosen(predictions, metrics).items():
        for metric_class in family.metrics:
            groups = {"": list(predictions)}
            if by_target and family.select in (_masks, _boxes):
                groups |= _by_target(predictions)
            for target, group in groups.items():
                predicted, references, patients = family.select(group)
                if not predicted:
                    if not target:
                        scores.skipped[name] = "no item has what it scores"
                    continue
                metric = metric_class()
                try:
                    items = metric.score_items(predicted, references)
                except VividMedError as error:
                    if metrics is not None:
                        raise
                    scores.skipped[name] = str(error)
                    continue
                for figure, interval in bootstrap(
                    metric, items, patients, samples=samples, seed=seed
                ).items():
                    key = f"{figure}/{target}" if target else figure
                    scores.figures[key] = interval
                    scores.counts[key] = len(items)
    return scores


def score_difference(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Differences ``second - first`` with paired intervals, over the items that both have.

    Raises:
        VividMedError: the two share no item, or as :func:`score`.
    """
    first, second = match_predictions(first, second)
    scores = _empty(first, samples, seed)
    for name, family in _chosen(first, metrics).items():
        for metric_class in family.metrics:
            metric = metric_class()
            sides = [family.select(side) for side in (first, second)]
            if not sides[0][0]:
                continue
            try:
                items = [metric.score_items(predicted, references) for predicted, references, _ in sides]
            except VividMedError as error:
                if metrics is not None:
                    raise
                scores.skipped[name] = str(error)
                continue
            differences = compare(metric, items[0], items[1], sides[0][2], samples=samples, seed=seed)
            scores.figures |= differences
            scores.counts |= dict.fromkeys(differences, len(items[0]))
    return scores


def _chosen(predictions: Sequence[Prediction], metrics: Sequence[str] | None) -> dict[str, Family]:
    tasks = {prediction.task for prediction in predictions}
    if len(tasks) != 1:
        raise VividMedError(
            f"the predictions are of {len(tasks)} tasks ({', '.join(sorted(tasks))}); score one at a time"
        )
    (task,) = tasks
    known = families()
    fitting = {name: family for name, family in known.items() if task in family.tasks}
    if metrics is None:
        return fitting
    for name in metrics:
        if name not in fitting:
            reason = f"does not fit the task {task}" if name in known else "is unknown"
            raise VividMedError(f"--metrics: {name!r} {reason}; use one of {', '.join(fitting)}")
    return {name: fitting[name] for name in metrics}


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


def _texts(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[str]]:
    return (
        [prediction.prediction for prediction in predictions],
        [prediction.reference for prediction in predictions],
        [prediction.patient for prediction in predictions],
    )


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
            found.append(phrase.mask or {**reference.mask, "box": [0] * 6, "bits": b""})
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
