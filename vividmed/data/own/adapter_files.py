"""Adapters in files of one's own, outside the package."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from vividmed.data.adapters.base import Adapter, registered
from vividmed.data.terms import DatasetTerms
from vividmed.errors import VividMedError


def load_adapter_file(path: Path) -> list[str]:
    """Import a Python file, which runs its code, and find the adapters that it registers.

    Args:
        path: file with classes decorated by ``@register``; see ``docs/adapters.md``.

    Returns:
        Names of its adapters.

    Raises:
        VividMedError: the file cannot be imported, registers no adapter, or an adapter lacks a fact.
    """
    return list(_load(path.absolute()))


@cache
def _load(path: Path) -> Sequence[str]:
    if not path.is_file():
        raise VividMedError(f"--adapter {path}: no such file; give a Python file with an adapter")
    name = f"vividmed_adapter_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise VividMedError(f"--adapter {path}: is not a Python file; give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise VividMedError(f"--adapter {path}: cannot be imported ({reason}); correct it") from error
    found = {key: adapter for key, adapter in registered().items() if adapter.__module__ == name}
    if not found:
        raise VividMedError(
            f"--adapter {path}: registers no adapter; decorate its class with @register, see docs/adapters.md"
        )
    for key, adapter in found.items():
        _check(adapter, f"--adapter {path}: {key}")
        # Processes that work on cases find the class by its file.
        adapter.__reduce__ = _reduce(path, key)  # type: ignore[method-assign, assignment]
    return tuple(found)


def _check(adapter: type[Adapter], where: str) -> None:
    required = ("title", "modalities", "licence", "access", "redistribute")
    if missing := [name for name in required if not hasattr(adapter, name)]:
        raise VividMedError(f"{where}: lacks {', '.join(missing)}; see docs/adapters.md")
    if abstract := sorted(getattr(adapter, "__abstractmethods__", ())):
        raise VividMedError(f"{where}: lacks the method {abstract[0]}; see docs/adapters.md")
    DatasetTerms.of(adapter())


def _reduce(path: Path, name: str) -> Callable[[Adapter], tuple[object, ...]]:
    return lambda adapter: (_instance, (path, name))


def _instance(path: Path, name: str) -> Adapter:
    _load(path)
    return registered()[name]()
