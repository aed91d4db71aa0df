"""The arguments of a run as a YAML file that starts the same run again."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

import yaml

_SECRET = ("hub_token",)


def resolved_config(arguments: Sequence[Any]) -> str:
    """Everything that was set to another value than its default, from several argument dataclasses.

    Access tokens are left out. ``resume_from_checkpoint`` belongs to one start of a run and is left out too.
    """
    values: dict[str, Any] = {}
    for group in arguments:
        for field in fields(group):
            if not field.init or field.name in (*_SECRET, "resume_from_checkpoint"):
                continue
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            value = _plain(getattr(group, field.name))
            if value != _plain(default) and _is_plain(value):
                values[field.name] = value
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float | bool)
