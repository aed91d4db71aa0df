"""Loads the sample, and builds it first if it does not exist."""

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import overload

import datasets
from datasets import Dataset, DatasetDict, load_dataset

from vividmed.data.sample.store import build_once
from vividmed.data.schema import SCHEMAS, RowKind
from vividmed.errors import VividMedError

KINDS = tuple(SCHEMAS)
SPLITS = ("train", "test")
NONCOMMERCIAL_VARIABLE = "VIVIDMED_SAMPLE_NONCOMMERCIAL"
"""Environment variable that adds the patients whose images must not be used commercially, if it is ``1``."""


@overload
def load_sample(
    row_kind: RowKind, split: None = None, *, with_noncommercial: bool = False
) -> DatasetDict: ...
@overload
def load_sample(row_kind: RowKind, split: str, *, with_noncommercial: bool = False) -> Dataset: ...
def load_sample(
    row_kind: RowKind, split: str | None = None, *, with_noncommercial: bool = False
) -> Dataset | DatasetDict:
    """Load one kind of rows of the sample; the first call on a machine builds it.

    The sample is stored in the cache of Hugging Face datasets, so ``HF_HOME`` and ``HF_DATASETS_CACHE`` are respected.
    Building takes less than a minute. It needs the package index that pip is configured for, or a folder of archives
    named by ``VIVIDMED_SAMPLE_ARCHIVES``.

    Args:
        row_kind: ``vision_language``, ``localization`` or ``grounded_report``; see :mod:`vividmed.data.schema`.
        split: ``train``, ``test``, or None for both. No patient is in both.
        with_noncommercial: add four chest CTs with tumour contours, licensed CC BY-NC 3.0; so does the environment
            variable ``VIVIDMED_SAMPLE_NONCOMMERCIAL=1``.

    Returns:
        The split, or a dict of both.

    Raises:
        VividMedError: the kind or split is unknown, a package is missing, the archives cannot be fetched, or the cache
            cannot be written.
    """
    if row_kind not in KINDS:
        raise VividMedError(f"load_sample: unknown kind {row_kind!r}; use one of {', '.join(KINDS)}")
    if split is not None and split not in SPLITS:
        raise VividMedError(f"load_sample: unknown split {split!r}; use one of {', '.join(SPLITS)}")
    folder = sample_folder(with_noncommercial=with_noncommercial) / row_kind
    files = {name: str(folder / f"{name}.parquet") for name in SPLITS}
    with _without_progress_bars():
        return load_dataset("parquet", data_files=files, split=split)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hide the progress bars of datasets: the files are small, and bars would break the lines of messages."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def sample_folder(*, with_noncommercial: bool = False) -> Path:
    """Folder of the complete sample, ``<kind>/<split>.parquet``; built if it does not exist.

    Args:
        with_noncommercial: like that of :func:`load_sample`.
    """
    for module in ("SimpleITK", "pylibjpeg", "libjpeg"):
        if importlib.util.find_spec(module) is None:
            raise VividMedError(
                f"sample data: the package {module} is missing; pip install 'vividmed[sample]'"
            )
    from vividmed.data.sample.build import build

    root = Path(datasets.config.HF_DATASETS_CACHE) / "vividmed_sample"
    with_noncommercial = with_noncommercial or os.environ.get(NONCOMMERCIAL_VARIABLE) == "1"
    name = f"{_recipe()}-noncommercial" if with_noncommercial else _recipe()
    with _without_progress_bars():
        return build_once(root / name, partial(build, with_noncommercial=with_noncommercial))


def _recipe() -> str:
    """Key of the code that builds the sample: other code builds another sample, other prose does not."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    others = [package.parent / name for name in ("image_grids.py", "masks.py", "schema.py")]
    for path in [*sorted(package.glob("*.py")), *others]:
        digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return digest.hexdigest()[:16]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                part
                for part in node.body
                if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return tree
