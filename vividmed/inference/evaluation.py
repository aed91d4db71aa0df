"""A model and a data set by name in, a folder of predictions out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from tqdm.auto import tqdm

from vividmed.data.image_grids import IMAGE_COLUMNS
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.inference.loading import identify, load_trained
from vividmed.inference.predicting import predict_rows
from vividmed.inference.task_rows import EMBEDDED_SAMPLE, load_task_rows
from vividmed.metrics.predictions import RUN_FILE, PredictionWriter, Task, finish_run, predicted_ids
from vividmed.metrics.protocol import Protocol
from vividmed.training.launching import check_processes
from vividmed.version import __version__


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
        How many items all processes have predicted now, and how many were there.

    Raises:
        VividMedError: the model, data set or protocol cannot be used, the folder has predictions of another run, or the
            processes do not know of each other.
    """
    on_cpu = device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU")
    state = PartialState(cpu=on_cpu or not torch.accelerator.is_available())
    check_processes(state.num_processes)
    asked = Protocol.load(protocol)
    rows = load_task_rows(task, dataset, split)
    if asked.drop_last_image and task == "vqa" and len(rows):
        last = max(rows["id"])
        rows = rows.select([index for index, key in enumerate(rows["id"]) if key != last])
    if max_rows is not None:
        rows = rows.select(range(min(max_rows, len(rows))))
    loaded, processor = load_trained(model, device=device or state.device, dtype=getattr(torch, dtype))
    run = {
        "model": model,
        "weights": identify(loaded),
        "task": task,
        "dataset": dataset or EMBEDDED_SAMPLE,
        "split": split,
        "rows": _digest(rows),
        "protocol": asked.record(),
        "dtype": dtype,
    }
    _claim(output, run, state)
    done = predicted_ids(output)
    share = rows.select(range(state.process_index, len(rows), state.num_processes))
    with PredictionWriter(output, rank=state.process_index, world_size=state.num_processes) as writer:
        number = predict_rows(
            loaded,
            processor,
            tqdm(share, desc="rows", unit="row", disable=None if state.is_main_process else True),
            task=task,
            protocol=asked,
            writer=writer,
            done=done,
            batch_size=batch_size,
        )
    new = sum(gather_object([number]))
    if state.is_main_process:
        finish_run(output, new + len(done))
    return new, len(done)


def _digest(rows: Any) -> str:
    """Digest of questions and references; images are too large to be read twice."""
    digest = hashlib.sha256()
    for row in rows.select_columns([name for name in rows.column_names if name not in IMAGE_COLUMNS]):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _claim(output: Path, run: dict[str, Any], state: PartialState) -> None:
    """Write down what the folder's predictions come from, or refuse to mix them with others."""
    path = output / RUN_FILE
    if path.is_file():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            earlier = {key: written.get(key) for key in run}
        except (ValueError, AttributeError) as error:
            raise VividMedError(f"{path}: is damaged ({error}); name another folder") from error
        if differing := [key for key in run if earlier[key] != run[key]]:
            key = differing[0]
            raise VividMedError(
                f"{output} has predictions of another run ({key}: {earlier[key]!r}, now {run[key]!r}); name another "
                "folder, or delete this one"
            )
    elif state.is_main_process:
        versions = {
            "vividmed": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
        write_atomically(path, json.dumps({**run, "versions": versions, "items": None}, indent=2) + "\n")
    state.wait_for_everyone()
