"""Starts workloads, kills them at random moments, and tallies what that does to their results."""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.kills.workloads import TOKEN, USER, prepare_material, run_quietly, workloads
from tests.fixtures.hub.minihub import Hub, serve

# Processes of a workload start from a server that has imported everything, in milliseconds instead of seconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_LONGEST_CHAIN = 4


@dataclass
class Tally:
    """What happened to one workload."""

    kills: int = 0
    results: int = 0
    lost: int = 0
    differing: int = 0


class Killer:
    """Runs workloads in processes of their own and kills them.

    Args:
        folder: folder for everything the workloads write.
        hub: loopback Hub.
        seed: random seed of the moments.
    """

    def __init__(self, folder: Path, hub: Hub, seed: int):
        self.folder = folder
        self.moments = random.Random(seed)
        self.material = folder / "material"
        self.material.mkdir()
        prepare_material(self.material)
        self.workloads = workloads(self.material, hub)
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        self.tallies = {workload.name: Tally() for workload in self.workloads}
        self._number = 0

    def measure(self, index: int) -> None:
        """Run a workload unbroken, for its time and its result."""
        workload, folder = self.workloads[index], self._next_folder()
        start = time.monotonic()
        self._finish(index, folder)
        self.seconds[workload.name] = time.monotonic() - start
        self.expected[workload.name] = workload.result(folder)

    def chain(self, index: int, kills: int) -> int:
        """Start a workload, kill it up to ``kills`` times, let it finish and compare; give the number of kills."""
        workload, folder = self.workloads[index], self._next_folder()
        tally, done, before = self.tallies[workload.name], 0, 0
        for _ in range(kills):
            process = self._start(index, folder)
            process.join(self.moments.uniform(0, self.seconds[workload.name]))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            done += 1
            now = workload.progress(folder)
            tally.lost += now < before
            before = max(before, now)
        tally.kills += done
        tally.results += 1
        try:
            self._finish(index, folder)
        except RuntimeError as error:
            print(f"{workload.name}: {error}", file=sys.stderr)
            tally.lost += 1
            return done
        found, expected = workload.result(folder), self.expected[workload.name]
        if found != expected:
            tally.differing += 1
            names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            print(f"{workload.name}: {', '.join(names)} differ after {done} kills", file=sys.stderr)
        return done

    def _start(self, index: int, folder: Path) -> BaseProcess:
        process = _PROCESSES.Process(target=_work, args=(index, self.material, folder))
        process.start()
        return process

    def _finish(self, index: int, folder: Path) -> None:
        process = self._start(index, folder)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"ended with status {process.exitcode} when it was started again")

    def _next_folder(self) -> Path:
        self._number += 1
        return self.folder / f"work-{self._number}"


def _work(index: int, material: Path, folder: Path) -> None:
    hub = Hub(folder, {})  # only its address matters here, which is in the environment
    run_quietly(workloads(material, hub)[index], folder)


def kill_workloads(kills: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Kill all workloads in turn until a number of kills is reached.

    Args:
        kills: number of kills, over all workloads.
        seed: random seed of the moments.
        folder: empty folder to work in.
    """
    with _hub(folder) as hub:
        killer = Killer(folder, hub, seed)
        for index in range(len(killer.workloads)):
            killer.measure(index)
        done = 0
        while done < kills:
            for index in range(len(killer.workloads)):
                if done < kills:
                    done += killer.chain(index, min(kills - done, killer.moments.randint(1, _LONGEST_CHAIN)))
        return killer.tallies


@contextmanager
def _hub(folder: Path) -> Iterator[Hub]:
    """A loopback Hub that the processes to come find in their environment."""
    (folder / "hub").mkdir()
    hub = Hub(folder / "hub", {TOKEN: USER})
    with serve(hub) as url:
        os.environ |= {
            "HF_ENDPOINT": url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        _PROCESSES.set_forkserver_preload(["benchmarks.kills.workloads"])
        yield hub
