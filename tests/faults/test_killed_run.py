"""kill -9 at any moment, and what the next start finds."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import logged, small_trainer
from vividmed.training.runs.checkpointing import (
    find_fault,
    list_checkpoints,
    newest_complete_checkpoint,
    remove_partial_checkpoints,
)

pytestmark = pytest.mark.slow

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the program ended by itself"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_kill_at_random_moments_of_saving_leaves_only_complete_checkpoints(tmp_path):
    script = REPOSITORY / "tests" / "fixtures" / "saving_loop.py"
    moments = random.Random(0)
    interrupted = 0
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=ENVIRONMENT)
    wait_for(lambda: newest_complete_checkpoint(tmp_path), process)
    os.kill(process.pid, signal.SIGSTOP)
    # Stopped at random moments, the folder looks as a kill at that moment would leave it; the program need not
    # start anew each time.
    for _ in range(40):
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(moments.uniform(0.001, 0.02))
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.002)
        found = list_checkpoints(tmp_path)
        assert found
        assert [find_fault(folder) for folder in found] == [None] * len(found)
        interrupted += any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    kill(process)
    assert interrupted > 5, "the moments missed the saving"
    newest = newest_complete_checkpoint(tmp_path)
    remove_partial_checkpoints(tmp_path)
    assert newest_complete_checkpoint(tmp_path) == newest
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_run_killed_while_it_saves_resumes_to_the_same_losses(tmp_path):
    settings = {"max_steps": 6, "save_steps": 1, "per_device_train_batch_size": 2}
    unbroken = small_trainer(tmp_path / "unbroken", **settings)
    unbroken.train()

    folder = tmp_path / "killed"
    program = (
        "from pathlib import Path; from tests.fixtures.training import small_trainer; "
        f"small_trainer(Path({str(folder)!r}), **{settings!r}).train()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT, cwd=REPOSITORY)
    wait_for(lambda: folder.is_dir() and list(folder.glob(".checkpoint-[3456].partial/*")), process)
    kill(process)
    checkpoint = newest_complete_checkpoint(folder)
    assert checkpoint is not None
    remove_partial_checkpoints(folder)
    resumed = small_trainer(folder, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert logged(resumed) == logged(unbroken)
