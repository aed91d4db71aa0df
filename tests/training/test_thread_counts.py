"""How many threads a training process uses on a CPU, and how they wait."""

import os
import subprocess
import sys

import pytest
import torch

from vividmed.threads import wait_without_spinning
from vividmed.training import launching


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 1, 8), (8, 2, 4), (2, 1, 2), (2, 2, 1), (1, 2, 1)]
)
def test_processes_share_the_cores(cores, processes, threads, monkeypatch):
    chosen = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launching, "_threads_were_chosen", lambda: False)
    launching.use_all_cores(processes)
    assert chosen == [threads]
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given, expected, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    if given is None:
        del os.environ["OMP_WAIT_POLICY"]
    else:
        os.environ["OMP_WAIT_POLICY"] = given
    wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_the_way_of_waiting_is_set_before_torch_is_loaded():
    code = "import sys; import vividmed.cli.main, vividmed.cli.train, vividmed.console, vividmed.orphans, vividmed.threads; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
