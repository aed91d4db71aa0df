"""Settings of a file that contradict the command line give way to it, and a warning says so."""

from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.training.settings.model_arguments import ADAPTER_ARGUMENTS, QUANTIZATION_ARGUMENTS

logger = logging.get_logger(__name__)

_USUAL_WARMUP = 0.05
# Value on the command line: the settings of a file that it rules out.
_RULED_OUT: dict[tuple[str, Any], tuple[str, ...]] = {
    ("dataloader_num_workers", 0): ("dataloader_prefetch_factor", "dataloader_persistent_workers"),
    ("use_peft", False): (*ADAPTER_ARGUMENTS, *QUANTIZATION_ARGUMENTS, "load_in_4bit", "load_in_8bit"),
    ("load_in_4bit", False): QUANTIZATION_ARGUMENTS,
    ("load_in_4bit", True): ("load_in_8bit",),
    ("load_in_8bit", True): ("load_in_4bit", *QUANTIZATION_ARGUMENTS),
    ("muon", True): ("optim", "optim_args"),
    ("bf16", True): ("fp16",),
    ("fp16", True): ("bf16",),
    ("eval_strategy", "no"): (
        "load_best_model_at_end",
        "eval_on_start",
        "early_stopping_patience",
        "early_stopping_threshold",
    ),
    ("save_strategy", "no"): ("load_best_model_at_end",),
    ("push_to_hub", False): ("hub_model_id",),
}


def settle(given: Mapping[str, Any], values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Drop or adapt what contradicts the command line.

    Args:
        given: values on the command line, by name.
        values: values of the file, by name.
        place: the file, for messages.

    Returns:
        Values of the file that can stand with those of the command line.

    Raises:
        VividMedError: the command line contradicts itself.
    """
    settled = dict(values)
    for (name, value), ruled_out in _RULED_OUT.items():
        if name in given and given[name] == value:
            for other in ruled_out:
                _drop(settled, other, given, f"--{name} {str(value).lower()}", place)
    if "optim" in given and not given.get("muon"):
        _drop(settled, "muon", given, f"--optim {given['optim']}", place)
    _settle_length(settled, given, place)
    return settled


def _settle_length(settled: dict[str, Any], given: Mapping[str, Any], place: str) -> None:
    """A run of another length than the file's keeps the share of its warm-up."""
    steps = given.get("max_steps", 0)
    if steps > 0 and "num_train_epochs" in given:
        raise VividMedError(
            "--max_steps and --num_train_epochs both set the length of the run: give one of them"
        )
    planned = settled.get("max_steps") or 0
    warmup = settled.get("warmup_steps") or 0
    if "num_train_epochs" in given:
        _drop(settled, "max_steps", given, f"--num_train_epochs {given['num_train_epochs']:g}", place)
        shorter = planned > 0
    else:
        shorter = 0 < steps < (planned or steps + 1)
    if shorter and warmup >= 1 and "warmup_steps" not in given and warmup < (planned or warmup + 1):
        settled["warmup_steps"] = warmup / planned if planned else _USUAL_WARMUP
        logger.warning(
            f"{place}: warmup_steps {warmup:g} belongs to a run of {planned or 'unknown'} steps; "
            f"{100 * settled['warmup_steps']:.3g} % of this run are taken instead"
        )


def _drop(settled: dict[str, Any], name: str, given: Mapping[str, Any], reason: str, place: str) -> None:
    if name in settled and name not in given:
        value = settled.pop(name)
        logger.warning(f"{place}: {name} {value} is left aside because of {reason} on the command line")
