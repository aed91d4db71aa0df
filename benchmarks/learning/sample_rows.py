"""Rows of the embedded sample that the alignment benchmarks train on, as data sets in a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from vividmed.data.sample import load_sample
from vividmed.data.schema import schema
from vividmed.data.taxonomy import Taxonomy

Row = Mapping[str, Any]


def save_rows(folder: Path, wanted: Callable[[Row], Row | None]) -> Path:
    """Write the training rows that ``wanted`` returns as split ``train``, and return the folder.

    Args:
        folder: folder to write to.
        wanted: takes a row with encoded images, and returns it, possibly with fewer targets, or None to leave it out.
    """
    stored = load_sample("localization", split="train").with_format("arrow")
    rows = [row for i in range(len(stored)) if (row := wanted(stored[i].to_pylist()[0])) is not None]
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list([dict(row) for row in rows], features=schema("localization")).to_parquet(
        folder / "train.parquet"
    )
    return folder


def is_anomaly(target: str) -> bool:
    """Whether a target is a finding rather than an organ."""
    return Taxonomy.load()[target].category == "anomaly"
