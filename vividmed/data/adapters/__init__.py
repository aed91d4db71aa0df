"""Adapters of published data sets, one file each, found by name; see ``docs/adapters.md``.

Other packages add theirs by the entry point group ``vividmed.adapters``, which names modules or adapter classes.
"""

import difflib
import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from vividmed.data.adapters.base import Adapter, register, registered
from vividmed.errors import VividMedError

__all__ = ["ENTRY_POINTS", "Adapter", "adapter_names", "get_adapter"]

ENTRY_POINTS = "vividmed.adapters"

logger = logging.getLogger(__name__)


@cache
def _import_all() -> None:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found = entry.load()
            if isinstance(found, type) and issubclass(found, Adapter):
                register(found)
        except Exception as error:  # a broken package of others must not take the other adapters along
            logger.warning("adapter %s of another package cannot be used: %s", entry.value, error)


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
        raise VividMedError(f"no data set has the name {name!r}; {hint}vividmed prepare --list shows all")
    return registered()[name]()
