"""Two processes on a CPU against one, through the command a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import make_rows, small_model, small_processor
from vividmed.training.stages.command import main

TRAIN = REPOSITORY / "stages" / "train.py"


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> tuple[Path, Path]:
    """A small model and a data set in files, of 13 and 5 rows: neither is a multiple of the batch."""
    folder = tmp_path_factory.mktemp("material")
    processor = small_processor()
    small_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    make_rows(range(13)).to_parquet(folder / "data" / "train.parquet")
    make_rows(range(20, 25)).to_parquet(folder / "data" / "test.parquet")
    return folder / "model", folder / "data"


def arguments(material, output: Path, batch_size: int) -> list[str]:
    """The command line of a run of four steps."""
    model, data = material
    (output.parent / "config.yaml").write_text(
        "max_steps: 4\nlogging_steps: 1\nlearning_rate: 1.0e-2\nmax_length: 96\nper_device_eval_batch_size: 2\n"
        "eval_strategy: steps\neval_steps: 2\nsave_steps: 2\ngeneration_samples: 1\ngeneration_max_new_tokens: 2\n"
        "closed_question_samples: 2\nreport_to: none\ndisable_tqdm: true\ndataloader_pin_memory: false\n"
    )
    options = ["--stage", "vlm", "--config", str(output.parent / "config.yaml"), "--output_dir", str(output)]
    options += ["--model_name_or_path", str(model), "--dataset_name", str(data), "--use_cpu"]
    return [*options, "--per_device_train_batch_size", str(batch_size)]


def launch_two(options: list[str], cache: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command += ["--cpu", str(TRAIN), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cache)}
    environment.pop("WORLD_SIZE", None)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def losses(output: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line.get("loss", line.get("eval_loss")))
        for line in lines
        if "loss" in line or "eval_loss" in line
    ]


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_same_global_batch(material, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(arguments(material, one, batch_size=4)) == 0
    done = launch_two(arguments(material, two, batch_size=2), tmp_path / "cache")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("checkpoint: ") == 1
    assert (two / "checkpoint-4" / "rng_state_1.pth").is_file(), "there was one process only"
    ours, theirs = losses(two), losses(one)
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], abs=2e-5)
