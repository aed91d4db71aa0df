"""Rows of a data set by key: which row, and for which epoch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import datasets
from torch.utils.data import Dataset


class SampleKey(NamedTuple):
    """Which row to read, and for which epoch.

    The epoch travels with the row's index so that a data loader's worker, however long it lives, knows which augmentation
    to draw: randomness is a function of (seed, epoch, index) and never of a worker's own state.
    """

    epoch: int
    row: int


class KeyedRows(Dataset):
    """A data set's rows, by :class:`SampleKey` to train on them or by plain index to evaluate.

    Args:
        rows: of a data set, or any sequence of rows.
        pad_to_multiple_of: lengthen the data set to a multiple of this number with copies of its first rows, marked
            ``"repeated": True``. The collator ignores their labels, so that a distributed evaluation, which needs
            full batches on every process, counts each row once.
    """

    def __init__(self, rows: datasets.Dataset | Sequence[dict[str, Any]], pad_to_multiple_of: int = 1):
        # As stored, images stay encoded: the collator decodes them, and can tell a broken one from the others.
        self._stored = rows.with_format("arrow") if isinstance(rows, datasets.Dataset) else None
        self.rows = rows
        self._length = math.ceil(len(rows) / pad_to_multiple_of) * pad_to_multiple_of

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """The row, images encoded, with ``epoch`` (None for a plain index), ``index`` and ``repeated`` added."""
        epoch, index = key if isinstance(key, SampleKey) else (None, key)
        repeated = index >= len(self.rows)
        index %= len(self.rows)
        row = self.rows[index] if self._stored is None else self._stored[index].to_pylist()[0]
        return {**row, "epoch": epoch, "index": index, "repeated": repeated}
