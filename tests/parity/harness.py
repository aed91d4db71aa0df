"""Cases that compare our code with numbers of the published implementation.

A case is a generator of :class:`Check`, registered under the name that the golden folder's ``golden.json`` gives it:

    @case("01_vision")
    def vision(golden: Golden) -> Iterator[Check]:
        yield close("tokens.0", ours, golden.tensors("01_vision")["tokens.0"])
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file

TOLERANCE = 2e-4
BUNDLED = Path(__file__).parent / "data" / "golden_a"


@dataclass(frozen=True)
class Check:
    """One compared quantity: ``difference`` is the largest absolute difference, 0 or inf where equality is asked."""

    name: str
    difference: float

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE


class Golden:
    """One folder of the published implementation's inputs and outputs (``VIVIDMED_PARITY_DIR`` or the bundled one)."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def description(self) -> dict:
        return json.loads((self.folder / "golden.json").read_text())

    @property
    def config(self) -> dict:
        return self.description["config"]

    @property
    def special_token_ids(self) -> dict[str, int]:
        return self.description["special_token_ids"]

    def case(self, name: str) -> dict:
        return self.description["cases"][name]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a case."""
        return load_file(self.folder / self.case(name)["file"])

    def json(self, name: str) -> dict:
        """The content of a case that is stored as JSON."""
        return json.loads((self.folder / self.case(name)["file"]).read_text())

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The whole tiny model under its published names."""
        return load_file(self.folder / self.description["model_file"])

    def images(self, tensors: dict[str, torch.Tensor], prefix: str = "image") -> list[torch.Tensor]:
        """``image.0``, ``image.1``, ... of a case in order, each (C, D, H, W)."""
        count = sum(name.rsplit(".", 1)[0] == prefix for name in tensors)
        return [tensors[f"{prefix}.{i}"] for i in range(count)]


CASES: dict[str, Callable[[Golden], Iterator[Check]]] = {}


def case(name: str):
    """Register a generator of checks under the name of a published case."""

    def register(function: Callable[[Golden], Iterator[Check]]):
        if name in CASES:
            raise KeyError(f"parity case {name!r} is registered twice")
        CASES[name] = function
        return function

    return register


def close(name: str, ours: torch.Tensor, published: torch.Tensor) -> Check:
    """Compare values; another shape or a NaN is an infinite difference."""
    if ours.shape != published.shape:
        return Check(f"{name} {tuple(ours.shape)} != {tuple(published.shape)}", float("inf"))
    if published.numel() == 0:
        return Check(name, 0.0)
    difference = (ours.detach().double() - published.double()).abs().max().item()
    return Check(name, difference if difference == difference else float("inf"))


def equal(name: str, ours: object, published: object) -> Check:
    """Ask for equality, of tensors or of anything that has ``==``."""
    if isinstance(ours, torch.Tensor) and isinstance(published, torch.Tensor):
        same = ours.shape == published.shape and bool((ours == published).all())
    else:
        same = bool(ours == published)
    return Check(name, 0.0 if same else float("inf"))


@cache
def golden() -> Golden:
    """The folder named by ``VIVIDMED_PARITY_DIR``, else the copy in this repository."""
    folder = Path(os.environ.get("VIVIDMED_PARITY_DIR") or BUNDLED)
    if not (folder / "golden.json").is_file():
        raise FileNotFoundError(f"VIVIDMED_PARITY_DIR={folder} holds no golden.json")
    return Golden(folder)


def load_cases() -> dict[str, Callable[[Golden], Iterator[Check]]]:
    """Import every module that registers cases; returns the registry."""
    import importlib

    for path in sorted(Path(__file__).parent.glob("cases_*.py")):
        importlib.import_module(f"tests.parity.{path.stem}")
    return CASES
