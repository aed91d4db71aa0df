"""The arguments of a run as a YAML file that starts the same run again."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

import yaml
from transformers.trainer_pt_utils import AcceleratorConfig

# Access tokens; what belongs to one start of a run only; deprecated doubles of other arguments.
_LEFT_OUT = (
    "hub_token",
    "resume_from_checkpoint",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "local_rank",
)


def resolved_config(arguments: Sequence[Any]) -> str:
    """Every setting that differs from its default, from several dataclasses of arguments.

    Access tokens are left out, and so is ``resume_from_checkpoint``, which belongs to one start of a run only.
    """
    values: dict[str, Any] = {}
    for group in arguments:
        for field in fields(group):
            if not field.init or field.name in _LEFT_OUT:
                continue
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if field.name == "accelerator_config":
                default = AcceleratorConfig()
            value = _plain(getattr(group, field.name))
            if value != _plain(default) and _is_plain(value):
                values[field.name] = value
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, AcceleratorConfig):
        return {name: setting for name, setting in value.to_dict().items() if setting is not None}
    if isinstance(value, list):
        return list(map(_plain, value))
    return value.value if isinstance(value, Enum) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float | bool)
