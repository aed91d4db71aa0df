"""Times functions in turn and in CPU seconds, so that other programs on the machine disturb the comparison little."""

import statistics
import time
from collections.abc import Callable, Mapping

Times = dict[str, list[float]]


def alternate(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> Times:
    """CPU seconds of every run in each round, after one warm-up round; the runs take turns.

    CPU seconds are those of all threads of this process, which equal wall-clock seconds for one thread on an idle machine.

    Args:
        runs: functions to time, by name.
        rounds: number of rounds that count.
        before: functions to call before those of the same name, without timing them.
    """
    times: Times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            if before is not None:
                before[name]()
            start = time.process_time()
            run()
            if number:
                times[name].append(time.process_time() - start)
    return times


def median(times: Times, name: str) -> float:
    """Median CPU seconds of a run."""
    return statistics.median(times[name])


def ratio(times: Times, name: str, baseline: str) -> float:
    """Median over the rounds of the ratio of two runs of the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[baseline], strict=True))
