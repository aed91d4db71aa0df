"""SIGTERM, which queues send: training ends with a checkpoint, and with its launcher."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from transformers import TrainerCallback

from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import logged, make_rows, small_model, small_processor, small_trainer
from vividmed.training.runs.checkpointing import find_fault, newest_complete_checkpoint

SETTINGS = {"max_steps": 4, "save_steps": 100, "per_device_train_batch_size": 2}


class Terminate(TrainerCallback):
    """Sends the own process SIGTERM in the middle of a step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_terminated_run_leaves_a_checkpoint_from_which_it_resumes_exactly(tmp_path):
    unbroken = small_trainer(tmp_path / "unbroken", **SETTINGS)
    unbroken.train()
    earlier = signal.getsignal(signal.SIGTERM)
    terminated = small_trainer(tmp_path / "run", **SETTINGS)
    terminated.add_callback(Terminate())
    with pytest.raises(SystemExit) as caught:
        terminated.train()
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == earlier
    checkpoint = newest_complete_checkpoint(tmp_path / "run")
    assert checkpoint.name == "checkpoint-2"
    resumed = small_trainer(tmp_path / "run", **SETTINGS)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert logged(resumed) == logged(unbroken)


@pytest.mark.slow
def test_training_ends_with_its_launcher_and_leaves_a_checkpoint(tmp_path):
    processor = small_processor()
    small_model(processor).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        make_rows(range(4)).to_parquet(tmp_path / "data" / f"{split}.parquet")
    run = tmp_path / "run"
    settings = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "data"),
        "output_dir": str(run),
        "max_steps": 100_000,
        "max_length": 96,
        "save_steps": 100_000,
        "logging_steps": 1,
        "closed_question_samples": 1,
        "generation_max_new_tokens": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--cpu",
        "--num_processes",
        "1",
    ]
    command += [
        str(REPOSITORY / "stages" / "train.py"),
        "--stage",
        "vlm",
        "--config",
        str(tmp_path / "config.yaml"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + 120
    while not (run / "metrics.jsonl").is_file() or '"loss"' not in (run / "metrics.jsonl").read_text():
        assert launcher.poll() is None, (tmp_path / "log").read_text()[-2000:]
        assert time.monotonic() < end
        time.sleep(0.05)
    (training,) = psutil.Process(launcher.pid).children()
    launcher.terminate()
    launcher.wait()
    training.wait(timeout=60)
    checkpoint = newest_complete_checkpoint(run)
    assert checkpoint is not None, (tmp_path / "log").read_text()[-2000:]
    assert find_fault(checkpoint) is None
