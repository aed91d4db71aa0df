"""Killed drivers, second runs on one output, and a Slurm array, in processes of their own."""

import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.fixtures.preparation import Toy, add_case
from tests.fixtures.slurm import install_slurm
from vividmed.data.preparation.distributed import slurm_executor
from vividmed.data.preparation.prepare import plan_preparation, prepare_dataset
from vividmed.errors import VividMedError


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    for number in range(12):  # more than are processed to make the plan
        add_case(tmp_path / "origin", f"p{number}_0", seed=number)
    return tmp_path / "origin"


def test_a_second_run_on_the_same_output_is_refused(origin: Path, tmp_path: Path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"), pytest.raises(VividMedError, match="another run works on it"):
        prepare_dataset(Toy(), origin, tmp_path / "out")
    assert prepare_dataset(Toy(), origin, tmp_path / "out").worked_on == 12


class Slow(Toy):
    """Spends a minute on every case, in the workers."""

    name = "slow"

    @property
    def exclude_minimum(self) -> bool:  # type: ignore[override]
        if os.getpid() != int(os.environ["DRIVER"]):
            time.sleep(60)
        return False


def _drive(origin: Path, output: Path) -> None:
    os.environ["DRIVER"] = str(os.getpid())
    prepare_dataset(Slow(), origin, output, num_proc=2)


@pytest.mark.slow
def test_workers_end_when_their_driver_is_killed(origin: Path, tmp_path: Path):
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    driver = context.Process(target=_drive, args=(origin, tmp_path / "out"))
    driver.start()
    workers = _wait_for(lambda: _below(driver.pid), 2)
    assert len(workers) >= 2
    driver.kill()
    driver.join()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def _wait_for(find, count: int) -> list[int]:
    deadline = time.monotonic() + 120
    while len(found := find()) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _below(pid: int) -> list[int]:
    """Processes whose ancestor this one is, the forkserver of its pool left out."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return [child for child, parent in parents.items() if parent in children]


@pytest.mark.slow
def test_a_slurm_array_gives_the_same_shards(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_slurm(tmp_path / "bin", monkeypatch)
    prepare_dataset(Toy(), origin, tmp_path / "one", shard_bytes=10_000)
    plan = plan_preparation(Toy(), origin, tmp_path / "array", shard_bytes=10_000)
    assert len(plan.shards) > 1
    slurm_executor(plan, tasks=2, partition="cpu", time="01:00:00", memory_gb=4).run()
    plan.finish(worked_on=0)
    shards = [
        {file.name: file.read_bytes() for file in (tmp_path / name / "data").iterdir()}
        for name in ("one", "array")
    ]
    assert shards[0] == shards[1]
