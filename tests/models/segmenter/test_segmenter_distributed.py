"""Two processes, one of which has no prompt in its batch: training neither hangs nor changes."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.losses import MaskLoss
from vividmed.models.segmenter.modeling_segmenter import Segmenter

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the gloo backend")

SHAPES = [(4, 16, 16), (1, 16, 24)]
PATCHES = [(4, 8, 8), (1, 8, 8)]


def build() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(
        SegmenterConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=(4, 8, 8),
            position_grid=(2, 3, 3),
            decoder_intermediate_size=40,
            decoder_num_attention_heads=2,
        )
    )


def loss_of(model: torch.nn.Module, empty: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images = [] if empty else [torch.rand(3, *shape, generator=generator) for shape in SHAPES]
    output = model(images, [torch.ones(2, 32)] * len(images), PATCHES[: len(images)])
    losses = [MaskLoss()(masks, masks.detach() > 0).total for masks in output.masks]
    return sum(losses, output.graph_anchor)


def shard(model: Segmenter) -> torch.nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(rank: int, folder: str) -> None:
    """One backward pass of each kind; the second process has no image."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    for name, wrap in (("DDP", DistributedDataParallel), ("FSDP2", shard)):
        model = build()
        wrapped = wrap(model)
        loss = loss_of(wrapped, empty=rank == 1)
        loss.backward()
        gradients = {
            key: grad.full_tensor() if isinstance(grad := parameter.grad, DTensor) else grad
            for key, parameter in model.named_parameters()
        }
        if rank == 0:
            torch.save({"loss": loss.detach(), "gradients": gradients}, Path(folder) / f"{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    mp.spawn(train, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DDP", "FSDP2"])
def test_a_process_without_prompts_trains_along(results, kind):
    result = torch.load(results / f"{kind}.pt", weights_only=True)
    model = build()
    loss = loss_of(model, empty=False)
    loss.backward()
    assert torch.allclose(result["loss"], loss.detach())
    for name, parameter in model.named_parameters():
        # Both kinds average over the two processes.
        assert torch.allclose(result["gradients"][name], parameter.grad / 2, atol=1e-6), name
