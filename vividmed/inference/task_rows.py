"""Rows that a task asks about, by the name of a data set."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from vividmed.data.loading import load_prepared
from vividmed.data.own.direct import prepared_location
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.schema import RowKind
from vividmed.errors import VividMedError
from vividmed.metrics.predictions import Task

logger = logging.getLogger(__name__)

ROW_KINDS: dict[Task, tuple[RowKind, ...]] = {
    "vqa": ("vision_language",),
    "report": ("vision_language", "grounded_report"),
    "ground": ("localization",),
    "grounded-report": ("grounded_report",),
}
"""Kinds of rows that a task can be asked about."""

EMBEDDED_SAMPLE = "embedded sample"
"""What a run calls the data set that is used where none is named."""


def rows_of_run(run: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Rows that a run's predictions are about, images encoded; none if they are no longer there.

    Args:
        run: content of the folder's ``run.json``; may be empty.
    """
    try:
        dataset = run["dataset"]
        rows = load_task_rows(run["task"], None if dataset == EMBEDDED_SAMPLE else dataset, run["split"])
    except (KeyError, VividMedError) as error:
        reason = "no run.json names the data set" if isinstance(error, KeyError) else error
        logger.warning(
            "the rows of the predictions are not found (%s): cases are shown without images", reason
        )
        return ()
    keyed = KeyedRows(rows)
    return (keyed[index] for index in range(len(keyed)))


def load_task_rows(task: Task, dataset: str | None, split: str) -> Any:
    """Rows of the first kind that the task can ask about and the data set has.

    Raises:
        VividMedError: the data set cannot be loaded, or has no such split or rows.
    """
    from vividmed.data.sample import load_sample
    from vividmed.data.schema import SCHEMAS

    if dataset is None:
        return load_sample(ROW_KINDS[task][0], split)
    splits = load_prepared(prepared_location(dataset), what=f"--dataset {dataset}", row_kinds=ROW_KINDS[task])
    if split not in splits:
        raise VividMedError(
            f"--split {split}: {dataset} has no such split; choose one of {', '.join(splits)}"
        )
    rows = splits[split]
    for kind in ROW_KINDS[task]:
        if set(SCHEMAS[kind]) <= set(rows.column_names):
            return rows
    kinds = " or ".join(ROW_KINDS[task])
    raise VividMedError(f"--dataset {dataset}: --task {task} needs {kinds} rows; see docs/metrics.md")
