"""Times programs in turn, so that a busy machine treats them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

Times = dict[str, list[float]]


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of every run in each round, after one warm-up round; the runs take turns.

    Args:
        runs: what to time, by name.
        rounds: number of rounds that count.
    """
    times: Times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def median(times: Times, name: str) -> float:
    """Median seconds of a run."""
    return statistics.median(times[name])


def ratio(times: Times, name: str, baseline: str) -> float:
    """Median over the rounds of the ratio of two runs of the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[baseline], strict=True))
