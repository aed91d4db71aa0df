"""Stage align-sam on the real volumes of the embedded sample: does the segmenter learn their organs?

    python -m benchmarks.learning.align_sam

Trains a tiny segmenter with random weights on the training volumes, and measures it on the same volumes, on the model's
grid. This shows that the stage can fit real anatomy, and says nothing about other volumes. The exit status is 1 if the
target is missed.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.learning.sample_rows import is_anomaly, save_rows
from benchmarks.learning.table import Figure, conclude
from vividmed.training.stages.command import main as train

CONFIG = Path(__file__).parent / "configs" / "align_sam.yaml"
_DICE = "eval_dice/"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning/align-sam"))
    folder = parser.parse_args().output_dir
    started = time.perf_counter()
    rows = save_rows(folder / "rows", lambda row: row if row["volumes"] and row["masks"] else None)
    arguments = ["--stage", "align-sam", "--config", str(CONFIG), "--dataset_name", str(rows)]
    arguments += ["--eval_split", "train", "--output_dir", str(folder / "run")]
    if status := train(arguments):
        return status
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "eval_loss" in line][-1]
    dice = {name.removeprefix(_DICE): value for name, value in last.items() if name.startswith(_DICE)}
    organs = {name: value for name, value in dice.items() if not is_anomaly(name)}
    findings = {name: value for name, value in dice.items() if is_anomaly(name)}
    figures = [Figure(f"Dice of {name}", value) for name, value in {**organs, **findings}.items()]
    mean = sum(organs.values()) / len(organs)
    return conclude([*figures, Figure("mean Dice of organs", mean, 0.85)], started=started)


if __name__ == "__main__":
    sys.exit(main())
