"""Shuffled batches of rows of similar length; the order is a function of (seed, epoch) only."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from vividmed.data.sampling.keyed_rows import SampleKey

BATCHES_SORTED_TOGETHER = 32


class LengthGroupedSampler(Sampler[SampleKey]):
    """Yields the rows of one epoch, arranged so that each global batch has rows of similar length.

    Rows are shuffled and cut into pools of several global batches. Each pool is sorted by length and cut into global
    batches, and all batches are shuffled again. The batch with the longest row comes first, so that a run that does
    not fit into memory fails at its first step.

    The order is that of the *global* batch: any number of processes, workers or accumulation steps that multiply to it
    see the same batches. An epoch is a whole number of global batches; the last one is filled up with rows from the
    start of the epoch.

    Args:
        lengths: length of each row in tokens.
        batch_size: number of rows per optimizer step over all processes and accumulation steps.
        seed: seed of the shuffles.
        pool_size: number of global batches that are sorted together; more means less padding and less randomness. With 1,
            batches are random.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, seed: int, pool_size: int = BATCHES_SORTED_TOGETHER
    ):
        self.lengths = torch.as_tensor(lengths, dtype=torch.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.pool_size = pool_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch to iterate over."""
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
