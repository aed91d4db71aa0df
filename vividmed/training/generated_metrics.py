"""Metrics of generated answers during training: a bounded number of held-out rows is answered and scored."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.schema import RowKind
from vividmed.errors import VividMedError
from vividmed.metrics.names import FIGURES, METRIC_TASKS, SOURCES, expand, logged_name
from vividmed.metrics.predictions import Prediction, Task

_ROW_TASKS: dict[RowKind, tuple[Task, ...]] = {
    "vision_language": ("vqa", "report"),
    "localization": ("ground",),
    "grounded_report": ("grounded-report",),
}


def chosen_metrics(names: str, row_kind: RowKind) -> list[str]:
    """Metrics that ``--eval_metrics`` asks for.

    Args:
        names: metrics, families or figures, separated by commas.
        row_kind: kind of the evaluation rows.

    Raises:
        VividMedError: a name is unknown, needs weights, or does not fit the rows; or a library is not installed.
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise VividMedError("--eval_metrics: is empty; name metrics such as bleu,token_f1, or leave it out")
    metrics = expand(given, where="--eval_metrics")
    tasks = _ROW_TASKS[row_kind]
    for metric in metrics:
        if metric in SOURCES or metric == "radcliq":
            raise VividMedError(
                f"--eval_metrics: {metric} needs weights of its own and is left to 'vividmed evaluate score'; leave it out"
            )
        if not set(METRIC_TASKS[metric]) & set(tasks):
            fitting = [
                each for each in FIGURES if set(METRIC_TASKS[each]) & set(tasks) and each not in SOURCES
            ]
            raise VividMedError(
                f"--eval_metrics: {metric} does not fit {row_kind} rows; use one of {', '.join(fitting)}"
            )
    try:
        from vividmed.metrics.registry import registry

        registry()
    except ModuleNotFoundError as error:
        raise VividMedError(
            f'--eval_metrics: the package {error.name} is not installed; run: pip install "vividmed[evaluation]"'
        ) from error
    return metrics


def logged_names(metrics: Sequence[str]) -> list[str]:
    """Names under which figures of metrics are logged, without ``eval_``."""
    return [logged_name(figure) for metric in metrics for figure in FIGURES[metric]]


def check_decided(metric: str, metrics: Sequence[str], rows: Any, row_kind: RowKind, max_rows: int) -> None:
    """Check that rows can decide a figure of generated answers; names of anything else pass.

    Args:
        metric: logged name, with or without ``eval_``.
        metrics: names of metrics, see :func:`chosen_metrics`.
        rows: evaluation rows.
        row_kind: their kind.
        max_rows: largest number of rows that are answered.

    Raises:
        VividMedError: right answers to all rows would not have this figure.
    """
    from vividmed.inference.predicting import items_of_rows
    from vividmed.metrics.protocol import Protocol

    name = metric.removeprefix("eval_")
    if name not in logged_names(metrics):
        return
    protocol, answered = Protocol.load("default"), _spread(rows, max_rows)
    written = {
        task: [_right(item) for item, _ in items_of_rows(answered, task, protocol)]
        for task in _tasks(metrics, row_kind)
    }
    if name not in (found := _scored(metrics, written)):
        raise VividMedError(
            f"--metric_for_best_model {metric}: not even right answers to the {len(answered)} evaluation rows that are answered "
            f"have it; choose one of {', '.join(found) or 'the losses'}, or raise --eval_metrics_samples"
        )


def _spread(rows: Any, number: int) -> list[Any]:
    """At most this many rows, evenly spread over all."""
    keyed = KeyedRows(rows)
    number = min(number, len(keyed))
    return [keyed[index * len(keyed) // number] for index in range(number)]


def _tasks(metrics: Sequence[str], row_kind: RowKind) -> list[Task]:
    """Tasks of rows that a metric scores."""
    return [task for task in _ROW_TASKS[row_kind] if any(task in METRIC_TASKS[metric] for metric in metrics)]


def _right(item: Prediction) -> Prediction:
    """The item with its reference as the answer."""
    phrases = [replace(phrase, scores=[1.0] * len(phrase.boxes)) for phrase in item.references]
    return replace(item, prediction=item.reference, phrases=phrases)


def _scored(metrics: Sequence[str], written: Mapping[Task, Sequence[Prediction]]) -> dict[str, float]:
    """Figures by the names that they are logged under; those that no item decides are left out."""
    from vividmed.metrics.registry import registry

    figures: dict[str, float] = {}
    entries = registry()
    for name in metrics:
        items = [each for task, found in written.items() if task in METRIC_TASKS[name] for each in found]
        selected = entries[name].select(items)
        if selected.predicted:
            computed = entries[name].make({})
            figures |= _finite(
                computed.aggregate(computed.score_items(selected.predicted, selected.references))
            )
    return {logged_name(name): value for name, value in figures.items()}


class GeneratedMetrics:
    """Answers held-out rows with the model as it is, greedily, and scores the answers.

    Every process answers every row, because the parts of a sharded model need each other.

    Args:
        metrics: names of metrics, see :func:`chosen_metrics`.
        rows: evaluation rows.
        row_kind: their kind.
        processor: processor of the model.
        max_rows: largest number of rows, evenly spread over all.
        max_new_tokens: longest answer in tokens.
        batch_size: number of questions answered together.
        context: makes the context to generate in, such as an accelerator's autocast.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        rows: Any,
        row_kind: RowKind,
        processor: Any,
        max_rows: int,
        max_new_tokens: int,
        batch_size: int,
        context: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.metrics = list(metrics)
        self.row_kind = row_kind
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.context = context
        self.rows = _spread(rows, max_rows)

    def __call__(self, model: Any) -> dict[str, float]:
        """Figures by the names that they are logged under; those that no row decides are left out."""
        from vividmed.inference.predicting import predict_rows
        from vividmed.metrics.protocol import Protocol

        protocol = replace(Protocol.load("default"), max_new_tokens=self.max_new_tokens)
        written: dict[Task, list[Prediction]] = {}
        with self.context():
            for task in _tasks(self.metrics, self.row_kind):
                written[task] = []
                predict_rows(
                    model,
                    self.processor,
                    self.rows,
                    task=task,
                    protocol=protocol,
                    writer=_Collected(written[task]),
                    batch_size=self.batch_size,
                )
        return _scored(self.metrics, written)


class _Collected:
    """Keeps predictions in a list."""

    def __init__(self, predictions: list[Prediction]):
        self._predictions = predictions

    def write(self, prediction: Prediction) -> None:
        """Keep one prediction."""
        self._predictions.append(prediction)


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if value == value}
