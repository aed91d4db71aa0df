"""The demo on patients it never saw: modality, plane and presence over several seeds.

    python -m benchmarks.learning.demo
    python -m benchmarks.learning.demo --seeds 42

Trains stage vlm as `make demo` does, once for each seed, and prints the share of right answers to the held-out questions,
and that of the most frequent answer, which for presence is counted for each structure. The exit status is 1
if a target is missed.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vividmed.threads import wait_without_spinning

SEEDS = (42, 43, 44)
RIGHT = 0.95
"""Share of right answers about modality and plane."""
ABOVE_MAJORITY = 0.15


def majority(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Share of closed questions that the most frequent answer would get right, by kind.

    Args:
        rows: with ``kind`` and one turn of ``messages``. The answers to a presence question are counted for each
            question, so for each structure.
    """
    from vividmed.training.answers import CLOSED_KINDS

    answers: dict[str, dict[str, Counter[str]]] = {kind: {} for kind in CLOSED_KINDS}
    for row in rows:
        if row["kind"] in answers:
            question, answer = (message["content"] for message in row["messages"])
            group = question if row["kind"] == "presence" else ""
            answers[row["kind"]].setdefault(group, Counter())[answer] += 1
    return {
        kind: sum(max(counts.values()) for counts in groups.values())
        / sum(counts.total() for counts in groups.values())
        for kind, groups in answers.items()
        if groups
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning/demo"))
    options = parser.parse_args()
    started = time.perf_counter()
    wait_without_spinning()  # as `make demo` does, before torch is imported
    from benchmarks.learning.table import Figure, conclude
    from vividmed.data.sample import load_sample
    from vividmed.training.answers import CLOSED_KINDS
    from vividmed.training.stages.command import run

    right: dict[str, list[float]] = {kind: [] for kind in CLOSED_KINDS}
    figures = []
    for seed in options.seeds:
        folder = options.output_dir / str(seed)
        result = run(["--stage", "vlm", "--seed", str(seed), "--output_dir", str(folder)])
        for kind, accuracy in result.measurement.accuracy.items():
            right[kind].append(accuracy.correct / accuracy.total)
            figures.append(Figure(f"{kind}, seed {seed}", right[kind][-1]))
    frequent = majority(load_sample("vision_language", "test").select_columns(["kind", "messages"]))
    for kind, shares in right.items():
        figures.append(Figure(f"{kind}, most frequent answer", frequent[kind]))
        target = frequent[kind] + ABOVE_MAJORITY if kind == "presence" else RIGHT
        figures.append(Figure(f"{kind}, mean of the seeds", sum(shares) / len(shares), target))
    return conclude(figures, started=started)


if __name__ == "__main__":
    sys.exit(main())
