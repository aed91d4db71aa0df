"""Checks before a run starts: what would otherwise end it later, with a library's traceback."""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from accelerate.utils import is_bf16_available
from huggingface_hub import HfApi
from transformers import Trainer
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from vividmed.errors import VividMedError
from vividmed.training.settings.arguments import DataArguments, VividMedTrainingArguments


def check_environment(args: VividMedTrainingArguments, metrics: Sequence[str]) -> None:
    """Make sure that what the arguments ask for is installed, supported and reachable.

    Args:
        args: the run's.
        metrics: names that an evaluation logs, without ``eval_``; a trailing ``*`` stands for any ending.

    Raises:
        VividMedError: naming the argument and the remedy.
    """
    _check_reports(args)
    _check_precision(args)
    _check_metric(args, metrics)
    if (args.deepspeed or args.deepspeed_plugin) and importlib.util.find_spec("deepspeed") is None:
        raise VividMedError("--deepspeed: the package is not installed; run `pip install deepspeed`")
    if args.push_to_hub and args.should_save:
        _check_hub(args)


def check_streaming(data_args: DataArguments, args: VividMedTrainingArguments) -> None:
    """Make sure that a run on a stream, which has no end, is given its length.

    Raises:
        VividMedError: it is not.
    """
    if data_args.streaming and args.max_steps <= 0:
        raise VividMedError(
            "--streaming: a stream has no end, so epochs cannot be counted; give the number of steps with --max_steps"
        )


def check_optimizer(args: VividMedTrainingArguments, model: Any) -> None:
    """Make sure that the optimizer is installed and fits the model.

    Raises:
        VividMedError: naming the optimizer and the reason.
    """
    try:
        Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ImportError, ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise VividMedError(
            f"--optim {args.optim.value}: {_one_line(error)}; install what it needs or choose another optimizer"
        ) from error


def check_schedule(args: VividMedTrainingArguments, num_rows: int, rows_per_step: int) -> None:
    """Make sure that the warm-up is shorter than the run.

    Args:
        args: the run's.
        num_rows: number of training rows.
        rows_per_step: number of rows of an optimizer step over all processes.

    Raises:
        VividMedError: the learning rate would never be reached.
    """
    steps = args.max_steps
    if steps <= 0:
        steps = math.ceil(args.num_train_epochs * math.ceil(num_rows / rows_per_step))
    if args.warmup_steps >= 1 and args.warmup_steps >= steps:
        raise VividMedError(
            f"--warmup_steps {args.warmup_steps:g}: the run has only {steps} steps, so that the learning rate is never "
            "reached; give fewer, or a share such as --warmup_steps 0.05"
        )


def _check_reports(args: VividMedTrainingArguments) -> None:
    available = get_available_reporting_integrations()
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise VividMedError(
                f"--report_to {name}: unknown; installed here: {', '.join(available) or 'none'}; use one of these or 'none'"
            )
        if name not in available and name != "flyte":
            raise VividMedError(
                f"--report_to {name}: the package is not installed; run `pip install {name.replace('_', '-')}`, or use "
                f"{' or '.join([*available, 'none'])}"
            )


def _check_precision(args: VividMedTrainingArguments) -> None:
    if args.mixed_precision == "fp16" and args.device.type == "cpu":
        raise VividMedError("--fp16: needs a GPU; leave it out, or use --bf16 with --use_cpu")
    if args.mixed_precision == "bf16" and args.device.type != "cpu" and not is_bf16_available(True):
        raise VividMedError("--bf16: this accelerator does not support bfloat16; give --bf16 false")


def _check_metric(args: VividMedTrainingArguments, metrics: Sequence[str]) -> None:
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    if not any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in metrics):
        raise VividMedError(
            f"--metric_for_best_model {args.metric_for_best_model}: this stage's evaluation gives "
            f"{', '.join(each.replace('*', 'TARGET') for each in metrics)}; choose one of them"
        )


def _check_hub(args: VividMedTrainingArguments) -> None:
    try:
        HfApi().whoami(token=args.hub_token)
    except Exception as error:  # whatever stands between here and the Hub: no token, no network, a proxy
        raise VividMedError(
            f"--push_to_hub: the Hub does not accept this session ({_one_line(error)}); log in with `hf auth login`, check "
            "the network, or leave it out and publish the folder later"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
