"""Whether a run can be resumed exactly: what a checkpoint was made with, and what differs now."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from transformers import Trainer
from transformers.utils import logging

from vividmed.data import image_grids
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.errors import VividMedError

logger = logging.get_logger(__name__)

RUN_RECORD = "run.json"
# Arguments that decide which numbers a run computes. The rest say where, how fast, or what is written down.
_DECISIVE = (
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "lr_update_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "muon",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "neftune_noise_alpha",
)


def run_record(trainer: Trainer, max_steps: int) -> dict[str, Any]:
    """Everything that must stay the same for a run to continue exactly.

    Args:
        trainer: trainer with its arguments, model, collator and rows.
        max_steps: optimizer steps of the whole run.
    """
    args = trainer.args
    values = {name: getattr(args, name, None) for name in _DECISIVE}
    record: dict[str, Any] = {name: getattr(value, "value", value) for name, value in values.items()}
    if not record["lr_scheduler_type"].startswith("constant"):
        record["max_steps"] = max_steps
    record |= {
        "processes": args.world_size,
        "trainable weights": sum(each.numel() for each in trainer.model.parameters() if each.requires_grad),
        "training data": hash_rows(trainer.train_dataset),
        "optimizer state": not args.save_only_model,
    }
    settings = vars(trainer.data_collator) if hasattr(trainer.data_collator, "__dict__") else {}
    record |= {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
    return json.loads(json.dumps(record, default=str))


def hash_rows(train_dataset: Any) -> str | None:
    """SHA-256 of everything that rows contain except images and masks; None for rows that are not stored in Arrow.

    A stream's rows are known only when they are read: it gives its fingerprint instead.
    """
    if isinstance(train_dataset, MixtureStream):
        return train_dataset.fingerprint
    digest = hashlib.sha256()
    parts = [train_dataset.rows if isinstance(train_dataset, KeyedRows) else train_dataset]
    if isinstance(train_dataset, Mixture):
        parts = list(train_dataset.rows)
        drawn = [(stratum.name, stratum.mass) for stratum in train_dataset.strata]
        digest.update(repr((train_dataset.config.seed, drawn)).encode())
    for part in parts:
        if not isinstance(part, datasets.Dataset):
            return None
        light = [
            name
            for name, feature in part.features.items()
            if not _is_heavy(feature) and name != image_grids.COLUMN  # follows from the images
        ]
        for batch in part.select_columns(light).with_format("arrow").iter(batch_size=1000):
            for row in batch.to_pylist():
                digest.update(json.dumps(row, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def check_exact(checkpoint: Path, record: dict[str, Any], *, allow_inexact: bool) -> None:
    """Compare a run with the one that wrote a checkpoint.

    Args:
        checkpoint: folder of the checkpoint.
        record: :func:`run_record` of the run that is about to resume.
        allow_inexact: warn about differences instead of refusing them.

    Raises:
        VividMedError: the run would not continue as it would have without a break; every difference is named.
    """
    path = checkpoint / RUN_RECORD
    if not path.is_file():
        logger.warning(f"{checkpoint} has no {RUN_RECORD}: whether the run resumes exactly cannot be checked")
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VividMedError(f"{path}: cannot be read ({error}); resume from another checkpoint") from error
    found = list(_differences(earlier, record))
    if not found:
        return
    if not allow_inexact:
        raise VividMedError(
            f"{checkpoint} cannot be resumed exactly: {'; '.join(found)}; restore what the run was started with, or "
            "accept another result with --allow_inexact_resume"
        )
    logger.warning(f"{checkpoint} is not resumed exactly: {'; '.join(found)}")


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    if not earlier.get("optimizer state", True):
        yield "it has no optimizer state (written with --save_only_model)"
    for name, value in now.items():
        if name == "optimizer state" or name not in earlier or earlier[name] == value:
            continue
        if name == "training data":
            yield "the training data differs"
        else:
            yield f"{name} is {value} instead of {earlier[name]}"


def _is_heavy(feature: Any) -> bool:
    """Tell whether a column contains images, volumes or packed masks."""
    if isinstance(feature, datasets.Image | datasets.Nifti):
        return True
    if isinstance(feature, datasets.Value):
        return "binary" in feature.dtype
    if isinstance(feature, dict):
        return any(map(_is_heavy, feature.values()))
    if isinstance(feature, list):
        return any(map(_is_heavy, feature))
    inner = getattr(feature, "feature", None)
    return inner is not None and _is_heavy(inner)
