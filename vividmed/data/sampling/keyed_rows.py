"""Rows of a data set by index and epoch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import datasets
from torch.utils.data import Dataset


class SampleKey(NamedTuple):
    """Index of a row and the epoch it is read in.

    The epoch travels with the index because a data loader's worker, which may live through many epochs, needs it to
    draw the augmentation: randomness is a function of (seed, epoch, index), never of a worker's own state.
    """

    epoch: int
    row: int


class KeyedRows(Dataset):
    """Rows of a data set, by :class:`SampleKey` in training and by plain index in evaluation.

    Args:
        rows: a data set, or any sequence of rows.
        pad_to_multiple_of: lengthens the data set to a multiple of this number with copies of its first rows, marked
            ``"repeated": True``. The collator ignores their labels, so that a distributed evaluation, which needs
            full batches on every process, counts each row once.
    """

    def __init__(self, rows: datasets.Dataset | Sequence[dict[str, Any]], pad_to_multiple_of: int = 1):
        # Images stay encoded until the collator decodes them, so that a broken image fails only its own row.
        self._stored = rows.with_format("arrow") if isinstance(rows, datasets.Dataset) else None
        self.rows = rows
        self._length = math.ceil(len(rows) / pad_to_multiple_of) * pad_to_multiple_of

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """The row, images encoded, plus ``epoch`` (None for a plain index), ``index`` and ``repeated``."""
        epoch, index = key if isinstance(key, SampleKey) else (None, key)
        repeated = index >= len(self.rows)
        index %= len(self.rows)
        row = self.rows[index] if self._stored is None else self._stored[index].to_pylist()[0]
        return {**row, "epoch": epoch, "index": index, "repeated": repeated}
