"""A model and a data set by name in, a folder of predictions out."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState

from vividmed.data.loading import load_prepared
from vividmed.data.own.direct import prepared_location
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.inference.loading import load_trained
from vividmed.inference.predicting import ROW_KINDS, predict_rows
from vividmed.metrics.predictions import RUN_FILE, PredictionWriter, Task, predicted_ids
from vividmed.metrics.protocol import Protocol
from vividmed.version import __version__

logger = logging.getLogger(__name__)


def predict_dataset(
    model: str,
    output: Path,
    *,
    task: Task,
    dataset: str | None = None,
    split: str = "test",
    max_rows: int | None = None,
    protocol: str = "default",
    batch_size: int = 4,
    device: str | None = None,
    dtype: str = "float32",
) -> tuple[int, int]:
    """Ask a model about the rows of a data set; each process of a distributed run takes its share.

    Args:
        model: folder or repository of a model or an adapter.
        output: folder of the predictions; what it has is not predicted again.
        task: what is asked.
        dataset: folder or repository of prepared rows; None for the embedded sample.
        split: of the data set.
        max_rows: use only the first rows.
        protocol: name or YAML file, see :class:`vividmed.metrics.protocol.Protocol`.
        batch_size: questions answered together.
        device: of the model; the accelerator by default, if there is one.
        dtype: of the weights.

    Returns:
        How many items were predicted now, and how many were there.

    Raises:
        VividMedError: the model, data set or protocol cannot be used, or the folder has predictions of another run.
    """
    state = PartialState()
    asked = Protocol.load(protocol)
    rows = load_task_rows(task, dataset, split)
    if asked.drop_last_image and task == "vqa" and len(rows):
        last = max(rows["id"])
        rows = rows.select([index for index, key in enumerate(rows["id"]) if key != last])
    if max_rows is not None:
        rows = rows.select(range(min(max_rows, len(rows))))
    run = {
        "model": model,
        "task": task,
        "dataset": dataset or EMBEDDED_SAMPLE,
        "split": split,
        "fingerprint": rows._fingerprint,
        "protocol": asked.record(),
        "dtype": dtype,
    }
    _claim(output, run, state)
    done = predicted_ids(output)
    loaded, processor = load_trained(model, device=device or state.device, dtype=getattr(torch, dtype))
    share = rows.select(range(state.process_index, len(rows), state.num_processes))
    with PredictionWriter(output, rank=state.process_index, world_size=state.num_processes) as writer:
        number = predict_rows(
            loaded,
            processor,
            share,
            task=task,
            protocol=asked,
            writer=writer,
            done=done,
            batch_size=batch_size,
        )
    return number, len(done)


EMBEDDED_SAMPLE = "embedded sample"
"""What a run calls the data set that is used where none is named."""


def rows_of_run(run: Mapping[str, Any]) -> Any:
    """Rows that a run's predictions are about; none if they are no longer there.

    Args:
        run: content of the folder's ``run.json``; may be empty.
    """
    try:
        dataset = run["dataset"]
        rows = load_task_rows(run["task"], None if dataset == EMBEDDED_SAMPLE else dataset, run["split"])
    except (KeyError, VividMedError) as error:
        logger.warning(
            "the rows of the predictions are not found (%s): cases are shown without images", error
        )
        return ()
    return KeyedRows(rows)


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


def _claim(output: Path, run: dict[str, Any], state: PartialState) -> None:
    """Write down what the folder's predictions come from, or refuse to mix them with others."""
    path = output / RUN_FILE
    if path.is_file():
        try:
            earlier = {key: json.loads(path.read_text(encoding="utf-8"))[key] for key in run}
        except (ValueError, KeyError) as error:
            raise VividMedError(f"{path}: is damaged ({error}); name another folder") from error
        if differing := [key for key in run if earlier[key] != run[key]]:
            key = differing[0]
            raise VividMedError(
                f"{output} has predictions of another run ({key}: {earlier[key]!r}, now {run[key]!r}); name another folder"
            )
    elif state.is_main_process:
        versions = {
            "vividmed": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
        write_atomically(path, json.dumps({**run, "versions": versions}, indent=2) + "\n")
    state.wait_for_everyone()
