"""The model under PyTorch's FSDP2 on two CPU processes; accelerate itself shards on GPUs only."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.fixtures.training import MAX_LENGTH, make_row, small_model, small_processor
from vividmed.data.batches.collator import VividMedCollator
from vividmed.models.language import VividMedDecoderLayer
from vividmed.models.vision import VividMedVisionLayer

PROCESSES = 2
INPUTS = ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights")
INPUTS += ("pixel_values", "patch_sizes", "pool_sizes")


def gradients(model, numbers, scale=1.0, items=None):
    batch = VividMedCollator(small_processor(), max_length=MAX_LENGTH)(
        [make_row(number) for number in numbers]
    )
    loss = model.train()(**{name: batch[name] for name in INPUTS}, num_items_in_batch=items).loss
    (loss * scale).backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    model = small_model(small_processor())
    for module in model.modules():
        if isinstance(module, VividMedDecoderLayer | VividMedVisionLayer):
            fully_shard(module)
    fully_shard(model)
    items = torch.load(Path(folder) / "items.pt", weights_only=True)
    # The second process has a picture and a text of another length than the first, which has a volume.
    found = gradients(model, [[3, 1], [2, 5]][rank], PROCESSES, items)
    if rank == 0:
        torch.save(found, Path(folder) / "gradients.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_model_has_the_gradients_of_the_whole_one(tmp_path):
    batch = VividMedCollator(small_processor(), max_length=MAX_LENGTH)([make_row(n) for n in (3, 1, 2, 5)])
    torch.save(torch.tensor(batch["size"].supervised_tokens), tmp_path / "items.pt")
    expected = gradients(small_model(small_processor()), [3, 1, 2, 5])
    mp.spawn(worker, args=(str(tmp_path),), nprocs=PROCESSES)
    sharded = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert sharded.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(sharded[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
