"""Two processes of which one has only boxes to learn from and the other only masks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from datasets import Dataset
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from benchmarks.learning.phantom_studies import NODULE, localization_row, make_phantom
from tests.fixtures.grounding import grounding_model
from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import small_processor
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.data.conversations import build_conversation
from vividmed.data.conversations.settings import ConversationSettings, LocalizationSettings
from vividmed.data.schema import schema
from vividmed.models.language import VividMedDecoderLayer
from vividmed.models.segmenter.image_encoder import SegmenterEncoderLayer
from vividmed.models.vision import VividMedVisionLayer
from vividmed.training.stages.command import main

PROCESSES = 2
TRAIN = REPOSITORY / "stages" / "train.py"
INPUTS = ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights")
INPUTS += ("pixel_values", "patch_sizes", "pool_sizes", "grounding_values", "grounding_labels")


def one_sided_rows() -> list[dict]:
    """A row with only boxes, and one with only masks."""
    phantom = next(p for p in map(make_phantom, range(99)) if p.nodules)
    row = localization_row(phantom)
    boxes = {**row, "id": "boxes", "targets": [NODULE], "absent": [], "masks": []}
    masks = {**row, "id": "masks", "targets": list(phantom.organs), "absent": [], "boxes": []}
    return [boxes, masks]


def collate(rows):
    def converse(kind, row, generator):
        settings = ConversationSettings(localization=LocalizationSettings(grounding=1.0))
        return build_conversation(kind, row, generator=generator, settings=settings)

    collator = GroundedCollator(
        small_processor(), transform=GroundingTransform(seed=0, draw_conversation=converse), max_length=400
    )
    return collator([{**row, "index": index, "epoch": None} for index, row in enumerate(rows)])


def gradients(model, batch, *, scale=1.0, items=None, samples=None):
    model.train()
    for parameter in model.instance_segmenter.mask_parameters():
        parameter.requires_grad_(False)
    loss = model(
        **{name: batch[name] for name in INPUTS}, num_items_in_batch=items, num_samples_in_batch=samples
    ).loss
    (loss * scale).backward()
    found = {"loss": loss.detach()}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None:
            found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    model = grounding_model(small_processor())
    for module in model.modules():
        if isinstance(module, VividMedDecoderLayer | VividMedVisionLayer | SegmenterEncoderLayer):
            fully_shard(module)
    fully_shard(model)
    rows, items = one_sided_rows(), torch.load(Path(folder) / "items.pt", weights_only=True)
    found = gradients(model, collate([rows[rank]]), scale=PROCESSES, items=items, samples=PROCESSES)
    losses = found.pop("loss")
    dist.all_reduce(losses)
    if rank == 0:
        torch.save({**found, "loss": losses}, Path(folder) / "gradients.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_model_has_the_loss_and_gradients_of_the_whole_one(tmp_path):
    rows = one_sided_rows()
    batches = [collate([row]) for row in rows]
    assert [sorted(batch["grounding_labels"][0])[0] for batch in batches] == ["box_counts", "mask_phrases"]
    items = torch.tensor(sum(batch["size"].supervised_tokens for batch in batches))
    torch.save(items, tmp_path / "items.pt")
    whole = grounding_model(small_processor())
    steps = [gradients(whole, batch, items=items, samples=PROCESSES) for batch in batches]
    expected = {**steps[-1], "loss": sum(step["loss"] for step in steps)}
    mp.spawn(worker, args=(str(tmp_path),), nprocs=PROCESSES)
    sharded = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert sharded.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(sharded[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def arguments(folder: Path, name: str, batch_size: int) -> list[str]:
    """The command line of three steps of stage vg."""
    settings = {
        "model_name_or_path": str(folder / "model"),
        "mixture": str(folder / "mixture.yaml"),
        "output_dir": str(folder / name),
        "use_cpu": True,
        "max_steps": 3,
        "per_device_train_batch_size": batch_size,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "max_length": 400,
        "augment": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return ["--stage", "vg", "--config", str(folder / f"{name}.yaml")]


def launch_two(options: list[str], cache: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command += ["--cpu", str(TRAIN), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cache)}
    environment.pop("WORLD_SIZE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def logged(output: Path) -> list[dict]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.slow
def test_two_processes_train_like_one_and_log_the_parts_of_both(tmp_path):
    processor = small_processor()
    grounding_model(processor).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    Dataset.from_list(one_sided_rows(), features=schema("localization")).to_parquet(
        tmp_path / "data" / "train.parquet"
    )
    entry = {
        "name": "one-sided",
        "kind": "localization",
        "path": str(tmp_path / "data"),
        "conversation": {"grounding": 1.0},
    }
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    assert main(arguments(tmp_path, "one", batch_size=2)) == 0
    launch_two(arguments(tmp_path, "two", batch_size=1), tmp_path / "cache")
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(two, one, strict=True):
        for name in ("loss", "lm_loss", "grounding_loss", "dice", "box_giou", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name
