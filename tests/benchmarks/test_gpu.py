"""The GPU benchmark's CPU twin: every part runs, and a part that fails leaves the others."""

import json

import pytest
import torch

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import parts


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    # Compilation takes a compiler and its time; what is tested is the program around it.
    monkeypatch.setattr(torch, "compile", lambda function=None, **_: function)

    def start(*arguments: str) -> tuple[int, dict, str]:
        status = program.main(["--tiny", "--output", str(tmp_path / "gpu.json"), *arguments])
        return status, json.loads((tmp_path / "gpu.json").read_text())["figures"], capsys.readouterr().out

    return start


def test_every_part_gives_figures(run, monkeypatch):
    monkeypatch.setattr(parts, "ATTENTION", ("sdpa", "missing"))
    status, figures, printed = run()
    assert status == 0
    assert "failed" in figures.pop("forward, missing")
    assert not [name for name, found in figures.items() if "failed" in found]
    assert {name.split(",")[0] for name in figures} == {
        "forward",
        "decoding",
        "bf16 LoRA",
        "mixed lengths",
        "QLoRA",
    }
    padded, packed = figures["mixed lengths, padded"], figures["mixed lengths, padding-free"]
    assert padded["tokens"] == packed["tokens"]
    assert printed.count("tokens/s") >= 4


def test_running_out_of_memory_ends_one_measurement_only(run, monkeypatch):
    def step(self, batch):
        if len(batch["pixel_values"]) > 1:
            raise torch.OutOfMemoryError("tried to allocate too much")

    monkeypatch.setattr(parts.TrainingStep, "__call__", step)
    monkeypatch.setattr(parts, "attention", lambda *_: iter(()))
    monkeypatch.setattr(parts, "decoding", lambda *_: iter(()))
    status, figures, _ = run("--parts", "language")
    assert status == 0
    assert figures["bf16 LoRA, 2 x 96 tokens"]["failed"].startswith("out of memory")
    assert "failed" not in figures["bf16 LoRA, 1 x 96 tokens"]


def test_a_machine_without_a_gpu_is_told_of_the_twin(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main([]) == 2
    assert "--tiny runs on a CPU" in capsys.readouterr().err
