"""Tensor parallelism on two CPU processes: both experts are sharded and the logits stay the same."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from tests.fixtures.batches import pad, ragged_samples, tiny_model
from vividmed import VividMedForCausalLM

PROCESSES = 2
SHARDED = [
    f"model.layers.0.{name}.weight"
    for name in (
        *(
            f"mlp.{expert}_mlp.{part}_proj"
            for expert in ("vision", "language")
            for part in ("gate", "up", "down")
        ),
        *(
            f"self_attn.{expert}_expert_{part}"
            for expert in ("vision", "language")
            for part in ("query_key_value", "dense")
        ),
    )
] + ["lm_head.weight"]


def worker(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=120),
    )
    model = VividMedForCausalLM.from_pretrained(
        folder, distributed_config=DistributedConfig(tp_size=PROCESSES)
    )
    parameters = dict(model.named_parameters())
    local = {
        name: list(value.to_local().shape if isinstance(value, DTensor) else value.shape)
        for name, value in parameters.items()
    }
    with torch.no_grad():
        logits = model(**pad(ragged_samples(), "left")).logits
    if rank == 0:
        torch.save({"logits": logits, "local": local}, Path(folder) / "parallel.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_both_experts_are_sharded_and_give_the_same_logits(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    mp.spawn(worker, args=(str(tmp_path),), nprocs=PROCESSES)
    found = torch.load(tmp_path / "parallel.pt", weights_only=True)
    whole = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for name in SHARDED:
        assert torch.Size(found["local"][name]).numel() * PROCESSES == whole[name], name
    with torch.no_grad():
        expected = model(**pad(ragged_samples(), "left")).logits
    torch.testing.assert_close(found["logits"], expected, atol=1e-5, rtol=1e-5)
