"""Batches arrive from another process as they were sent, in one piece."""

import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from vividmed.data.batches.batch import Batch


def example(number: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return Batch(
        images=[torch.rand(3, 1 + index, 5, 7, generator=generator) for index in range(3)],
        zeros=[torch.zeros(()).expand(3, 4, 5), torch.zeros(1).expand(1, 1)],
        ids=torch.arange(7) + number,
        labels=[{"masks": torch.ones(2, 3, dtype=torch.bool), "boxes": torch.empty(0, 6)}, {}],
        halves=torch.rand(3, generator=generator).half(),
        turned=torch.arange(6).reshape(2, 3).T,
        number=torch.tensor(1.5, dtype=torch.float64),
        names=["a", None],
        size=(1, 2),
    )


def assert_equal(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            assert_equal(first[name], second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("batch", [example(), Batch(), Batch(names=["a"]), Batch(flags=torch.tensor([True]))])
def test_what_arrives_is_what_was_sent(batch):
    assert_equal(pickle.loads(pickle.dumps(batch)), batch)


def test_all_tensors_are_one_piece_and_repeated_values_are_sent_once():
    arrived = pickle.loads(pickle.dumps(example()))
    tensors = [*arrived["images"], *arrived["zeros"], arrived["ids"], arrived["labels"][0]["masks"]]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    assert not any(arrived["zeros"][0].stride())


def test_a_copy_shares_its_tensors():
    batch = example()
    copied = copy.copy(batch)
    copied["ids"] = None
    assert copied["images"][0] is batch["images"][0]
    assert batch["ids"] is not None


def test_workers_send_the_batches_of_the_process_itself():
    options = {"batch_size": 1, "collate_fn": lambda numbers: example(numbers[0])}
    there = list(DataLoader(range(3), num_workers=1, **options))
    for sent, received in zip(DataLoader(range(3), **options), there, strict=True):
        assert_equal(received, sent)
