"""The order in which rows are trained on: shuffled, batches of similar length, a function of (seed, epoch) alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import torch
from torch.utils.data import Dataset, Sampler


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


class LengthGroupedOrder(Sampler[SampleKey]):
    """An endless supply of epochs in which each global batch holds rows of similar length.

    Rows are shuffled, cut into pools of several global batches, sorted by length within a pool, cut into global
    batches, and the batches shuffled again; the batch with the longest row comes first, so that a run that does not
    fit in memory fails at its first step. The order is that of the *global* batch: any number of processes, workers
    or accumulation steps that multiply to it see the same batches. An epoch is a whole number of global batches; the
    last one is filled up with rows of the epoch's start.

    Args:
        lengths: tokens of each row.
        batch_size: rows of one optimizer step over all processes and accumulation steps.
        seed: of the shuffle.
        pool_size: global batches that are sorted together; more means less padding and less randomness.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int, pool_size: int = 32):
        self.lengths = torch.as_tensor(lengths, dtype=torch.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.pool_size = pool_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        order = order.repeat(math.ceil(len(self) / max(1, len(order))))[: len(self)]
        pools = order.split(self.batch_size * self.pool_size)
        batches = torch.cat(
            [pool[self.lengths[pool].argsort(descending=True, stable=True)] for pool in pools]
        )
        batches = batches.view(-1, self.batch_size)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        longest = int(self.lengths[batches].amax(dim=1).argmax())
        batches[[0, longest]] = batches[[longest, 0]]
        return (SampleKey(self.epoch, index) for index in batches.flatten().tolist())
