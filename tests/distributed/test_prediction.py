"""Predictions by several real processes, killed and resumed by another number of them, against those of one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.phantom_studies import make_phantom, make_rows
from tests.fixtures.grounding import grounding_model
from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import small_processor
from vividmed.cli.main import main
from vividmed.metrics.predictions import read_predictions

ROWS = 16
PROTOCOL = "description: short reports\nreport_prompt: Report?\nmax_new_tokens: 150\n"
SCRIPT = [str(REPOSITORY / "stages" / "evaluate.py")]
MODULE = ["-m", "vividmed.cli.main", "evaluate"]


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """A model that grounds, rows, and the predictions of one process."""
    folder = tmp_path_factory.mktemp("material")
    processor = small_processor()
    for part in (grounding_model(processor), processor):
        part.save_pretrained(folder / "model")
    (folder / "rows").mkdir()
    make_rows("grounded_report", map(make_phantom, range(ROWS))).to_parquet(folder / "rows" / "test.parquet")
    (folder / "protocol.yaml").write_text(PROTOCOL)
    assert main(["evaluate", *question(folder, folder / "one"), "--device", "cpu"]) == 0
    return folder


def question(material: Path, output: Path) -> list[str]:
    asked = ["--task", "grounded-report", "--dataset", str(material / "rows"), "--batch-size", "1"]
    asked += ["--protocol", str(material / "protocol.yaml"), "--output", str(output)]
    return ["predict", str(material / "model"), *asked]


def launch(material: Path, output: Path, processes: int, target: list[str] = SCRIPT) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu"]
    environment = os.environ | {"HF_DATASETS_CACHE": str(material / "cache")}
    environment.pop("WORLD_SIZE", None)
    return subprocess.Popen(
        [*command, "--num_processes", str(processes), *target, *question(material, output)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=REPOSITORY,
    )


def lines(folder: Path) -> list[int]:
    """Number of complete lines in each file of predictions."""
    return [path.read_bytes().count(b"\n") for path in sorted(folder.glob("predictions*.jsonl"))]


@pytest.mark.slow
def test_processes_share_the_rows_and_another_number_of_them_resumes_after_a_kill(material, tmp_path):
    output = tmp_path / "several"
    killed, end = launch(material, output, 2), time.monotonic() + 240
    while sum(lines(output)) < 2:
        assert killed.poll() is None, "ended before it could be killed"
        assert time.monotonic() < end, "has not begun"
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    done = sum(lines(output))
    assert 2 <= done < ROWS
    resumed = launch(material, output, 3, MODULE)
    printed, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, printed[-2000:]
    assert printed.count(f"{ROWS - done} items predicted, {done} were there") == 1
    assert len(lines(output)) == 3
    assert sum(lines(output)) == ROWS
    assert_same(output, material / "one")


def assert_same(output: Path, expected: Path) -> None:
    """The same items with the same answers, whoever gave them."""
    ours, theirs = ([asdict(each) for each in read_predictions(folder)] for folder in (output, expected))
    assert [each["id"] for each in ours] == [each["id"] for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for found, wanted in zip(one.pop("phrases"), other.pop("phrases"), strict=True):
            assert found.pop("mask") == wanted.pop("mask")
            for name in ("boxes", "scores"):
                np.testing.assert_allclose(found.pop(name), wanted.pop(name), atol=1e-4)
            assert found == wanted
        assert one == other
