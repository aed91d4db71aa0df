"""Merge the arguments of the processor's call with those that callers group in mappings."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from vividmed.errors import VividMedError

_COMMON = "common_kwargs"
_MODALITIES = ("text_kwargs", "images_kwargs")


def call_options(
    arguments: Mapping[str, Any],
    extra: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    settings: Collection[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a call and settings of its images, merged as the processors of transformers merge them.

    A value in ``text_kwargs`` or ``images_kwargs`` or passed by itself takes precedence over ``common_kwargs``.

    Args:
        arguments: named arguments of the call; those with their default value count as not given.
        extra: further keyword arguments: the groups, and settings of the image processor.
        defaults: default of each named argument.
        settings: names of the image processor's settings.

    Raises:
        VividMedError: unknown argument, one given twice, or a group that is not a mapping.
    """
    groups = {name: _group(name, extra.get(name)) for name in (_COMMON, *_MODALITIES)}
    given = {name: value for name, value in arguments.items() if value != defaults[name]}
    given |= {name: value for name, value in extra.items() if name not in groups}
    known = [*defaults, *settings]
    for options in (given, *groups.values()):
        for name in options:
            _check_name(name, known)
    for group in _MODALITIES:
        if twice := sorted(given.keys() & groups[group].keys()):
            raise VividMedError(f"processor: {twice[0]} is given by itself and in {group}; give it once")
    text, images = (groups[name] for name in _MODALITIES)
    merged = {**defaults, **groups[_COMMON], **given, **text, **images}
    return (
        {name: value for name, value in merged.items() if name in defaults},
        {name: value for name, value in merged.items() if name not in defaults},
    )


def _group(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise VividMedError(f"processor: {name} is a {type(value).__name__}; give a mapping of arguments")
    return value


def _check_name(name: str, known: Collection[str]) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(known)}"
        raise VividMedError(f"processor: unknown argument {name!r}; {hint}")
