"""How many threads a training process uses on a CPU."""

import os

import pytest
import torch

from vividmed.training import launching


@pytest.mark.parametrize(
    ("cores", "processes", "has_workers", "threads"),
    [(8, 1, False, 8), (8, 2, False, 4), (8, 1, True, 7), (2, 1, True, 1), (2, 2, True, 1), (1, 1, True, 1)],
)
def test_processes_share_the_cores_and_leave_one_to_workers(
    cores, processes, has_workers, threads, monkeypatch
):
    chosen = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launching, "_threads_were_chosen", lambda: False)
    launching.use_all_cores(processes, has_workers=has_workers)
    assert chosen == [threads]
    assert os.environ["OMP_NUM_THREADS"] == str(threads)
