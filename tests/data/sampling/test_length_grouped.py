import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from vividmed.data.sampling.length_grouped import LengthGroupedSampler

LENGTHS = torch.randint(20, 200, (103,), generator=torch.Generator().manual_seed(0)).tolist()


def order(epoch: int = 0, batch_size: int = 8, **kwargs) -> list[int]:
    sampler = LengthGroupedSampler(LENGTHS, batch_size=batch_size, seed=3, **kwargs)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len(keys) == len(sampler)
    assert {key.epoch for key in keys} == {epoch}
    return [key.row for key in keys]


def padding(rows: list[int], batch_size: int = 8) -> int:
    batches = torch.tensor([LENGTHS[row] for row in rows]).view(-1, batch_size)
    return int((batches.amax(dim=1, keepdim=True) - batches).sum())


def test_epoch_contains_every_row_in_whole_global_batches():
    rows = order()
    assert set(rows) == set(range(len(LENGTHS)))
    assert len(rows) == 104


def test_order_depends_on_seed_and_epoch_only():
    assert order(2) == order(2)
    assert order(1) != order(2)


def test_batches_contain_rows_of_similar_length():
    shuffled = torch.randperm(104, generator=torch.Generator().manual_seed(1)).remainder(103).tolist()
    assert padding(order()) < 0.3 * padding(shuffled)


def test_batches_are_random_if_none_are_sorted_together():
    rows = order(pool_size=1)
    assert set(rows) == set(range(len(LENGTHS)))
    assert padding(rows) > 0.8 * padding(torch.randperm(104).remainder(103).tolist())


def test_longest_row_comes_in_the_first_batch():
    assert max(range(103), key=LENGTHS.__getitem__) in order()[:8]


@pytest.mark.parametrize(("processes", "per_device"), [(2, 4), (4, 2)])
def test_processes_share_the_global_batches_of_one(processes, per_device):
    sampler = LengthGroupedSampler(LENGTHS, batch_size=8, seed=3)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, per_device, False), processes, index))
        for index in range(processes)
    ]
    together = [sorted(key.row for shard in shards for key in shard[step]) for step in range(len(shards[0]))]
    single = torch.tensor(order()).view(-1, 8).sort(dim=1).values.tolist()
    assert together == single


def test_fewer_rows_than_a_global_batch_are_repeated():
    rows = [key.row for key in LengthGroupedSampler([5, 6, 7], batch_size=8, seed=0)]
    assert len(rows) == 8
    assert set(rows) == {0, 1, 2}
