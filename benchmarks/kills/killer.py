"""Starts workloads, kills them at random moments, and tallies what that does to their results."""

import difflib
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

from benchmarks.kills.workloads import TOKEN, USER, Workload, prepare_material, workloads
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
        self.unbroken: dict[str, Path] = {}
        self.tallies = {workload.name: Tally() for workload in self.workloads}
        self._number = 0

    def measure(self, index: int) -> None:
        """Run a workload unbroken, for its time and its result.

        The first run fills caches, so the second one is timed; both must give the same.
        """
        workload = self.workloads[index]
        for _ in range(2):
            folder, start = self._next_folder(), time.monotonic()
            self._finish(index, folder)
            self.seconds[workload.name] = time.monotonic() - start
            self._compare(workload, folder, kills=0)

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
        self._compare(workload, folder, done)
        return done

    def _compare(self, workload: Workload, folder: Path, kills: int) -> None:
        """Count a result that differs from the first one, and name the files."""
        found = workload.result(folder)
        expected = self.expected.setdefault(workload.name, found)
        unbroken = self.unbroken.setdefault(workload.name, folder)
        names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        if names:
            self.tallies[workload.name].differing += 1
            print(f"{workload.name}: {', '.join(names)} differ after {kills} kills", file=sys.stderr)
            for name in names:
                _print_difference(unbroken / "run" / name, folder / "run" / name)

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


def _print_difference(expected: Path, found: Path) -> None:
    """Show how a text file of a run differs from that of the unbroken one."""
    if expected.suffix in (".md", ".json", ".jsonl") and expected.is_file() and found.is_file():
        texts = [path.read_text(encoding="utf-8").splitlines() for path in (expected, found)]
        print("\n".join(difflib.unified_diff(*texts, lineterm="", n=0)), file=sys.stderr)


def _work(index: int, material: Path, folder: Path) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    hub = Hub(folder, {})  # only its address matters here, which is in the environment
    workloads(material, hub)[index].run(folder)


def kill_workloads(kills: int, seed: int, folder: Path, *, only: str | None = None) -> dict[str, Tally]:
    """Kill all workloads in turn until a number of kills is reached.

    Args:
        kills: number of kills, over all workloads.
        seed: random seed of the moments.
        folder: empty folder to work in.
        only: name of the only workload to kill; None for all.

    Raises:
        ValueError: no workload has that name.
    """
    with _hub(folder) as hub:
        killer = Killer(folder, hub, seed)
        chosen = [index for index, each in enumerate(killer.workloads) if only in (None, each.name)]
        if not chosen:
            raise ValueError(
                f"no workload {only!r}; name one of {', '.join(w.name for w in killer.workloads)}"
            )
        for index in chosen:
            killer.measure(index)
        done = 0
        while done < kills:
            for index in chosen:
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
