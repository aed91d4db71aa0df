"""The table of a learning benchmark, and whether its targets were reached."""

import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A metric and its target; no target if it is only reported."""

    name: str
    value: float
    target: float | None = None

    @property
    def reached(self) -> bool:
        return self.target is None or self.value >= self.target


def conclude(figures: Sequence[Figure], *, started: float) -> int:
    """Print the table and return the exit status: 1 if a target was missed, else 0.

    Args:
        figures: figures in the order of printing.
        started: ``time.perf_counter()`` at the start of the benchmark.
    """
    width = max(len(figure.name) for figure in figures)
    print(f"\n{'figure':<{width}}  measured  target")
    for figure in figures:
        target = "" if figure.target is None else f">= {figure.target:.2f}"
        verdict = "" if figure.target is None else "ok" if figure.reached else "MISSED"
        print(f"{figure.name:<{width}}  {figure.value:>8.3f}  {target:<8} {verdict}")
    print(
        f"took {(time.perf_counter() - started) / 60:.1f} min, of which this process computed "
        f"{time.process_time() / 60:.1f} min of one core"
    )
    return 0 if all(figure.reached for figure in figures) else 1
