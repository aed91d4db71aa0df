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
        keyed = KeyedRows(rows)
        number = min(max_rows, len(keyed))
        self.rows = [keyed[index * len(keyed) // number] for index in range(number)]

    def __call__(self, model: Any) -> dict[str, float]:
        """Figures by the names that they are logged under; those that no row decides are left out."""
        from vividmed.inference.predicting import predict_rows
        from vividmed.metrics.protocol import Protocol
        from vividmed.metrics.registry import registry

        protocol = replace(Protocol.load("default"), max_new_tokens=self.max_new_tokens)
        figures: dict[str, float] = {}
        entries = registry()
        written: dict[str, list[Prediction]] = {}
        with self.context():
            for task in _ROW_TASKS[self.row_kind]:
                if any(task in METRIC_TASKS[metric] for metric in self.metrics):
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
        for name in self.metrics:
            items = [each for task in METRIC_TASKS[name] for each in written.get(task, ())]
            selected = entries[name].select(items)
            if selected.predicted:
                computed = entries[name].make({})
                scored = computed.score_items(selected.predicted, selected.references)
                figures |= _finite(computed.aggregate(scored))
        return {logged_name(name): value for name, value in figures.items()}


class _Collected:
    """Keeps predictions in a list."""

    def __init__(self, predictions: list[Prediction]):
        self._predictions = predictions

    def write(self, prediction: Prediction) -> None:
        """Keep one prediction."""
        self._predictions.append(prediction)


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if value == value}
