"""Arguments of the Trainer that our stages would not obey: a run that sets one of them ends before it starts."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from vividmed.errors import VividMedError

_ORDERS = ("group_by_length", "random")
_NO_PREDICTIONS = "evaluation computes losses and generates answers, and collects no predictions"
_ONE_PUSH = "the model is uploaded once, at the end, with its card"
_REASONS = {
    "label_smoothing_factor": "the model weighs its labels token by token and computes the loss itself",
    "length_column_name": "lengths are measured from the text and the images' headers",
    "remove_unused_columns": "remove_unused_columns must be false: the collator needs the rows' images and text",
    "logging_nan_inf_filter": "a non-finite loss stops the run",
    "use_cache": "training keeps no cache of keys and values",
    "use_liger_kernel": "its kernels do not know this architecture",
    "liger_kernel_config": "its kernels do not know this architecture",
    "bf16_full_eval": "evaluation runs in the precision of training, and must not round the weights that are saved",
    "fp16_full_eval": "evaluation runs in the precision of training, and must not round the weights that are saved",
    "prediction_loss_only": _NO_PREDICTIONS,
    "eval_do_concat_batches": _NO_PREDICTIONS,
    "eval_use_gather_object": _NO_PREDICTIONS,
    "eval_accumulation_steps": _NO_PREDICTIONS,
    "include_for_metrics": _NO_PREDICTIONS,
    "batch_eval_metrics": _NO_PREDICTIONS,
    "do_predict": _NO_PREDICTIONS,
    "label_names": "the labels are those that the collator makes",
    "hub_strategy": f"hub_strategy must be 'end': {_ONE_PUSH}",
    "enable_jit_checkpoint": "SIGTERM ends every run with a checkpoint",
    "hub_always_push": _ONE_PUSH,
    "hub_revision": "the model is uploaded to the main branch",
}
# Optimizers of the Trainer that take no arguments beyond their own flags.
_PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adafactor", "sgd", "adagrad")


def refuse_unused(args: Any) -> None:
    """Stop at arguments that have no effect.

    Args:
        args: a ``VividMedTrainingArguments``.

    Raises:
        VividMedError: naming the first such argument and the reason.
    """
    for name in _changed(args, _REASONS):
        raise VividMedError(f"--{name} has no effect here: {_REASONS[name]}; leave it out")
    if args.train_sampling_strategy not in _ORDERS:
        raise VividMedError(
            f"--train_sampling_strategy has no effect here unless it is {' or '.join(_ORDERS)}"
        )
    optimizer = getattr(args.optim, "value", args.optim)
    if args.optim_args and optimizer in _PLAIN_OPTIMIZERS:
        raise VividMedError(f"--optim_args has no effect with --optim {optimizer}; leave it out")
    if args.muon and (other := _changed(args, ("optim", "optim_args"))):
        raise VividMedError(
            f"--{other[0]} has no effect with --muon, which is an optimizer itself; leave one out"
        )
    if args.optim_target_modules and not optimizer.startswith(("galore", "apollo")):
        raise VividMedError(f"--optim_target_modules has no effect with --optim {optimizer}; leave it out")
    if not args.activation_checkpointing:
        refuse_without(args, "activation_checkpointing", ("activation_checkpointing_kwargs",))
    if not args.push_to_hub:
        refuse_without(args, "push_to_hub", ("hub_model_id",))


def refuse_without(args: Any, needed: str, names: Iterable[str]) -> None:
    """Stop at arguments that have an effect only together with another one, which is not given.

    Args:
        args: a dataclass of arguments.
        needed: what ``names`` need.
        names: of arguments that differ from their default only by mistake.

    Raises:
        VividMedError: naming all of them.
    """
    if found := [f"--{name}" for name in _changed(args, names)]:
        raise VividMedError(
            f"{', '.join(found)}: no effect without --{needed}; add --{needed}, or leave "
            f"{'them' if len(found) > 1 else 'it'} out"
        )


def _changed(args: Any, names: Iterable[str]) -> list[str]:
    """Those of the arguments that differ from their default."""
    defaults = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(args)
    }
    return [
        name
        for name in names
        if name in defaults and getattr(getattr(args, name), "value", getattr(args, name)) != defaults[name]
    ]
