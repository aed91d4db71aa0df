"""Stage grg on pseudo-labelled phantoms: are rows made from plain reports as good to learn from as the true ones?

    python -m benchmarks.learning.pseudo

Images and plain reports go through ``vividmed ground-reports``: cleaned, tagged by rules, filtered, and located by masks
that a small segmentation program makes from the intensities only. A model that stage vg has taught to find things then
learns to report, once from the true rows and once from these. Nodules have boxes in both. Both are measured on phantoms that were not used for
training. An interrupted run resumes with the part that it was working on. The exit status is 1 if the pseudo-labelled rows
cost more than 0.05 Dice or 5 points of correct statements.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from benchmarks.learning.measures import dice
from benchmarks.learning.phantom_studies import NODULE, Phantom, make_phantom
from benchmarks.learning.phantoms import CONFIGS, HELD_OUT, TRAINING, measure, prepare, run_stage
from benchmarks.learning.pseudo_phantoms import segment, write_masks, write_plain_rows
from benchmarks.learning.table import Figure, conclude
from vividmed.cli.main import main as vividmed
from vividmed.data.loading import load_prepared
from vividmed.files import write_atomically
from vividmed.training.stages.command import main as train

LARGEST_LOSS_OF_DICE = 0.05
LARGEST_LOSS_OF_STATEMENTS = 0.05
STEPS = 1200
"""Steps of each grg run: after the 700 of the benchmark of phantoms, counting is learned from true rows only."""
_DICE = "written reports: Dice of phrases with masks"
_STATEMENTS = "correct statements of side, size and count"


def make_pseudo_rows(folder: Path, phantoms: list[Phantom]) -> Path:
    """Make grounded rows from images and plain reports, and return their folder."""
    write_plain_rows(folder / "plain", phantoms)
    write_masks(folder / "masks", phantoms)
    sizes = folder / "sizes.json"
    sizes.write_text("{}")  # phantoms are a few centimetres wide
    localize = ["--masks", str(folder / "masks"), "--organ-sizes", str(sizes), "--instances", NODULE]
    previous = folder / "plain"
    for step in ("clean", "tag", "filter", "localize", "rows"):
        command = ["ground-reports", step, "--input", str(previous), "--output", str(folder / step)]
        if status := vividmed([*command, *(localize if step == "localize" else ())]):
            raise SystemExit(status)
        previous = folder / step
    return previous


def agreement_with_truth(phantoms: list[Phantom], rows: Path) -> list[Figure]:
    """Figures of the rows themselves."""
    overlaps = []
    for phantom in phantoms[:200]:
        masks = segment(phantom.volume, phantom.affine)
        truths = dict(phantom.organs)
        if phantom.nodules:
            truths[NODULE] = np.any(phantom.nodules, axis=0)
        overlaps += [dice(masks.get(name), truth) for name, truth in truths.items()]
    made = load_prepared(str(rows), what="the rows", split="train").select_columns(["phrases"])
    phrases = [phrase for row in made for phrase in row["phrases"]]
    return [
        Figure("rows made, per phantom", len(made) / len(phantoms)),
        Figure("phrases with a place", sum(bool(p["targets"]) for p in phrases) / len(phrases)),
        Figure("Dice of the masks of the segmentation program", float(np.mean(overlaps))),
    ]


def train_on(rows: Path, start: Path, output: Path, steps: int) -> Path:
    """Train stage grg on a folder of rows, and return the folder of the model."""
    mixture = output.with_suffix(".yaml")
    entry = {"name": output.name, "kind": "grounded_report", "path": str(rows.resolve())}
    mixture.write_text(yaml.safe_dump({"datasets": [entry]}))
    arguments = ["--stage", "grg", "--config", str(CONFIGS / "phantoms_grg.yaml"), "--mixture", str(mixture)]
    arguments += ["--model_name_or_path", str(start), "--output_dir", str(output), "--max_steps", str(steps)]
    if status := train(arguments):
        raise SystemExit(status)
    return output


def figures_of(name: str, rows: Path, args: argparse.Namespace, localized: Path) -> dict[str, float]:
    """Train on a folder of rows and measure the model; what an earlier run has finished with these settings is kept."""
    path = args.output_dir / f"measured_{name}.json"
    settings = {"steps": args.steps, "phantoms": args.phantoms}
    if path.is_file() and (kept := json.loads(path.read_text()))["settings"] == settings:
        return kept["figures"]
    model = train_on(rows, localized, args.output_dir / f"grg_{name}", args.steps)
    figures = {figure.name: figure.value for figure in measure(model, [make_phantom(n) for n in HELD_OUT])}
    write_atomically(path, json.dumps({"settings": settings, "figures": figures}) + "\n")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning/pseudo"))
    parser.add_argument(
        "--localizer", type=Path, help="model of stage vg to start from, instead of training one"
    )
    parser.add_argument("--phantoms", type=int, default=len(TRAINING), help="number of training phantoms")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"training steps of each grg run (default: {STEPS})"
    )
    args = parser.parse_args()
    started, folder = time.perf_counter(), args.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    phantoms = [make_phantom(number) for number in TRAINING[: args.phantoms]]
    pseudo = make_pseudo_rows(folder / "pseudo", phantoms)
    figures = agreement_with_truth(phantoms, pseudo)
    localized = args.localizer or folder / "vg"
    if not (localized / "manifest.json").is_file():
        run_stage("vg", "localization", folder / "untrained", folder)
    measured = {
        name: figures_of(name, rows, args, localized)
        for name, rows in {"true": folder / "grounded_report", "pseudo": pseudo}.items()
    }
    for key, limit in ((_DICE, LARGEST_LOSS_OF_DICE), (_STATEMENTS, LARGEST_LOSS_OF_STATEMENTS)):
        true, made = measured["true"][key], measured["pseudo"][key]
        figures += [Figure(f"{key}: true rows", true), Figure(f"{key}: pseudo-labelled rows", made)]
        figures.append(Figure(f"{key}: difference", made - true, -limit))
    return conclude(figures, started=started)


if __name__ == "__main__":
    sys.exit(main())
