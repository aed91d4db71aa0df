"""bitsandbytes, imported without the compiler.

PEFT imports bitsandbytes, which hands some of its functions to ``torch.compile`` as it is imported. That loads torch's
compiler, which takes seconds in every command, whether or not anything is quantised.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import torch


def import_bitsandbytes() -> None:
    """Import bitsandbytes, if it is installed; its functions are compiled when they are first called."""
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    compile_now, torch.compile = torch.compile, _compiled_later(torch.compile)
    try:
        with suppress(ImportError):  # PEFT reports a broken installation
            import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compile_now


def _compiled_later(compile_now: Callable) -> Any:
    def compile_later(function: Callable | None = None, **options: Any) -> Callable:
        if function is None:
            return lambda given: compile_later(given, **options)
        compiled: list[Callable] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(function, **options))
            return compiled[0](*args, **kwargs)

        return run

    return compile_later
