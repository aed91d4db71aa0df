"""Adapters of published data sets, one file each, found by name; see ``docs/adapters.md``."""

import difflib
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from vividmed.data.adapters.base import Adapter, registered
from vividmed.errors import VividMedError

__all__ = ["Adapter", "adapter_names", "get_adapter"]


@cache
def _import_all() -> None:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


def adapter_names() -> list[str]:
    """Names of all adapters, sorted."""
    _import_all()
    return sorted(registered())


def get_adapter(name: str) -> Adapter:
    """Find the adapter of a data set.

    Raises:
        VividMedError: No adapter has that name.
    """
    names = adapter_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise VividMedError(f"no data set has the name {name!r}; {hint}prepare.py --list shows all")
    return registered()[name]()
