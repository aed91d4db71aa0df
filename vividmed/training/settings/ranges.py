"""Ranges of the numbers among the arguments, most of which the libraries notice late and by a traceback."""

import math
from dataclasses import dataclass, fields
from typing import Any

from vividmed.errors import VividMedError


@dataclass(frozen=True)
class _Range:
    """Numbers from ``low`` to ``high``; the ends belong to it unless they are excluded."""

    low: float = 0
    high: float = math.inf
    excluded: tuple[float, ...] = ()
    besides: float | None = None

    def __contains__(self, value: float) -> bool:
        inside = self.low <= value <= self.high and value not in self.excluded and math.isfinite(value)
        return inside or value == self.besides

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.low in self.excluded else f"at least {self.low:g}"
        high = f"less than {self.high:g}" if self.high in self.excluded else f"at most {self.high:.10g}"
        bounds = low if self.high == math.inf else f"{low} and {high}"
        return bounds if self.besides is None else f"{bounds}, or {self.besides:g}"


_NOT_NEGATIVE = _Range()
_COUNT = _Range(1)
_POSITIVE = _Range(0, excluded=(0,))
_SHARE = _Range(0, 1)
_PROPER_SHARE = _Range(0, 1, excluded=(1,))
_SEED = _Range(0, 2**32 - 1)
_RANGES = {
    **dict.fromkeys(
        (
            "ddp_bucket_cap_mb",
            "ddp_timeout",
            "dataloader_prefetch_factor",
            "early_stopping_patience",
            "eval_metrics_samples",
            "generation_max_new_tokens",
            "gradient_accumulation_steps",
            "lora_alpha",
            "lora_r",
            "lr_update_steps",
            "max_eval_samples",
            "max_image_tokens",
            "max_length",
            "max_present",
            "max_slice_tokens",
            "max_targets",
            "max_train_samples",
            "per_device_eval_batch_size",
            "per_device_train_batch_size",
            "save_total_limit",
            "torch_empty_cache_steps",
        ),
        _COUNT,
    ),
    **dict.fromkeys(("eval_steps", "logging_steps", "num_train_epochs", "save_steps"), _POSITIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "lora_dropout"), _PROPER_SHARE),
    **dict.fromkeys(("equalize", "focal_alpha", "score_alpha"), _SHARE),
    **dict.fromkeys(("seed", "data_seed"), _SEED),
    "max_steps": _Range(1, besides=-1),
    "local_rank": _Range(-1),
}


def check_ranges(args: Any) -> None:
    """Stop at a number that no run can use.

    A number without a range of its own must be finite and at least 0.

    Args:
        args: a dataclass of arguments.

    Raises:
        VividMedError: naming the argument, its value and its range.
    """
    for each in fields(args):
        value = getattr(args, each.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        allowed = _RANGES.get(each.name, _NOT_NEGATIVE)
        if value not in allowed:
            raise VividMedError(f"--{each.name} {value:.10g}: must be {allowed}")
