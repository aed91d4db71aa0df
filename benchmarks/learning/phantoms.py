"""Stages vg and grg on generated phantoms, measured on phantoms that were not used for training.

    python -m benchmarks.learning.phantoms

A tiny model with random weights learns to find organs and nodules, then to write reports that state number, size and
side of the nodules. Everything uses the public interface: the stages' own commands, ``generate_grounded`` and
``ground_report``. The exit status is 1 if a target is missed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from transformers import set_seed

from benchmarks.learning.measures import average_precision, dice, statements, true_statements
from benchmarks.learning.phantom_studies import Phantom, make_phantom, make_rows, marked_report
from benchmarks.learning.table import Figure, conclude
from vividmed.inference.grounding import REPORT_QUESTION, ground_report
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.stages.command import main as train

CONFIGS = Path(__file__).parent / "configs"
TRAINING = range(2048)
HELD_OUT = range(100_000, 100_064)
LONGEST_REPORT = 96


def prepare(folder: Path) -> None:
    """Write an untrained model and the rows of both stages."""
    set_seed(0)
    image_processor = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=8, max_slice_tokens=2)
    processor = VividMedProcessor(image_processor, VividMedProcessor.tiny().tokenizer)
    config = VividMedConfig.tiny(vocab_size=len(processor.tokenizer), grounding=True)
    model = VividMedForCausalLM(config)
    model.save_pretrained(folder / "untrained")
    processor.save_pretrained(folder / "untrained")
    phantoms = [make_phantom(number) for number in TRAINING]
    for kind in ("localization", "grounded_report"):
        (folder / kind).mkdir(exist_ok=True)
        make_rows(kind, phantoms).to_parquet(folder / kind / "train.parquet")  # type: ignore[arg-type]
        mixture = {"name": "phantoms", "kind": kind, "path": str(folder / kind)}
        if kind == "localization":
            mixture["conversation"] = {"modality": 0.0}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump({"datasets": [mixture]}))


def run_stage(stage: str, kind: str, start: Path, folder: Path) -> Path:
    """Train a stage that starts from a folder, and return its output folder."""
    output = folder / stage
    arguments = ["--stage", stage, "--config", str(CONFIGS / f"phantoms_{stage}.yaml")]
    arguments += ["--mixture", str(folder / f"{kind}.yaml")]
    arguments += ["--model_name_or_path", str(start), "--output_dir", str(output)]
    if status := train(arguments):
        raise SystemExit(status)
    return output


def measure(folder: Path, phantoms: Sequence[Phantom]) -> list[Figure]:
    """Measure a trained model."""
    model = VividMedForCausalLM.from_pretrained(folder).eval()
    processor = VividMedProcessor.from_pretrained(folder)
    images = [nib.Nifti1Image(p.volume.transpose(2, 1, 0), p.affine) for p in phantoms]
    written, given = [], []
    for phantom, image in zip(phantoms, images, strict=True):
        batch = processor(images=image, text=REPORT_QUESTION, grounding=True)
        written += model.generate_grounded(
            **batch,
            processor=processor,
            grounding="both",
            score_threshold=0.0,
            max_new_tokens=LONGEST_REPORT,
            do_sample=False,
        )
        given.append(ground_report(model, processor, image, marked_report(phantom), score_threshold=0.0))
    right, total = 0, 0
    for phantom, text in zip(phantoms, written, strict=True):
        wanted, said = true_statements(phantom), statements(text.text)
        total += len(wanted)
        right += sum(said.get(name) == value for name, value in wanted.items())
    return [
        *_places("written reports", phantoms, written, mask_target=0.8, box_target=0.7),
        *_places("given reports", phantoms, given),
        Figure("correct statements of side, size and count", right / total, 0.9),
    ]


def _places(
    name: str,
    phantoms: Sequence[Phantom],
    texts: Sequence[GroundedText],
    *,
    mask_target: float | None = None,
    box_target: float | None = None,
) -> list[Figure]:
    """Dice over all organs that are present, and AP of nodules; what a text does not name counts as not found."""
    overlaps, boxes, scores = [], [], []
    for phantom, text in zip(phantoms, texts, strict=True):
        phrases = {phrase.text: phrase for phrase in text.phrases}
        for organ, truth in phantom.organs.items():
            overlaps.append(dice(phrases[organ].mask if organ in phrases else None, truth))
        nodules = [phrase for phrase in text.phrases if "nodule" in phrase.text]
        boxes.append(np.concatenate([np.zeros((0, 6)), *(phrase.boxes for phrase in nodules)]))
        scores.append(np.concatenate([np.zeros(0), *(phrase.scores for phrase in nodules)]))
    truths = [np.array(phantom.boxes, dtype=float).reshape(-1, 6) for phantom in phantoms]
    return [
        Figure(f"{name}: Dice of phrases with masks", float(np.mean(overlaps)), mask_target),
        Figure(f"{name}: AP50 of boxes", average_precision(boxes, scores, truths), box_target),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning/phantoms"))
    folder = parser.parse_args().output_dir
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    localized = run_stage("vg", "localization", folder / "untrained", folder)
    reported = run_stage("grg", "grounded_report", localized, folder)
    return conclude(measure(reported, [make_phantom(number) for number in HELD_OUT]), started=started)


if __name__ == "__main__":
    sys.exit(main())
