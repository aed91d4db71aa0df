"""Stage align-isam on boxes of projected X-rays and of lesions: does the instance segmenter learn to find them?

    python -m benchmarks.learning.align_isam

Trains a tiny instance segmenter with random weights on these rows of the embedded sample, and measures it on the same
rows. This shows that the stage can fit real boxes, and says nothing about other images. The exit status is 1 if the
target is missed.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from safetensors.torch import load_file

from benchmarks.learning.measures import best_ious
from benchmarks.learning.sample_rows import is_anomaly, save_rows
from benchmarks.learning.table import Figure, conclude
from vividmed.data.batches.alignment import AlignmentCollator, SegmentationTransform
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter
from vividmed.processing.boxes import fractions_to_corners
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.training.alignment import PromptTableSegmenter
from vividmed.training.stages.command import main as train

CONFIG = Path(__file__).parent / "configs" / "align_isam.yaml"
CONFIDENT = 0.5


def wanted(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Keep all targets of X-rays, but only the lesions of other images."""
    if row["modality"] == "X-ray":
        return row if row["boxes"] else None
    row = {
        **row,
        **{name: [target for target in row[name] if is_anomaly(target)] for name in ("targets", "absent")},
        **{name: [e for e in row[name] if is_anomaly(e["target"])] for name in ("masks", "boxes")},
    }
    return row if row["boxes"] else None


@torch.no_grad()
def measure(rows: Path, run: Path) -> list[Figure]:
    """Measure the last checkpoint, which still has its prompts."""
    segmenter = InstanceSegmenter.from_pretrained(run)
    model = PromptTableSegmenter(segmenter).eval()
    checkpoint = max(run.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    processor = VividMedImageProcessor.from_pretrained(run)
    collate = AlignmentCollator(SegmentationTransform(image_processor=processor, label_type="box"))
    found: dict[str, list[float]] = defaultdict(list)
    confident: list[float] = []
    stored = load_dataset("parquet", data_files=str(rows / "train.parquet"), split="train").with_format(
        "arrow"
    )
    for number in range(len(stored)):
        batch = collate(stored[number].to_pylist())
        output = segmenter(batch["images"], model.prompts_of(batch["targets"]), batch["patch_sizes"])
        labels, size = batch["grounding_labels"][0], tuple(batch["images"][0].shape[1:])
        truths = labels["boxes"].split(labels["box_counts"].tolist())
        for name, boxes, logits, truth in zip(
            batch["targets"][0], output.boxes[0], output.logits[0], truths, strict=True
        ):
            corners, truth = (fractions_to_corners(each, size).numpy() for each in (boxes, truth))
            found[name] += best_ious(corners, truth)
            confident += best_ious(corners[logits.sigmoid().numpy() >= CONFIDENT], truth)
    figures = [Figure(f"best IoU of {name}", float(np.mean(ious))) for name, ious in found.items() if ious]
    every = [iou for ious in found.values() for iou in ious]
    return [
        *figures,
        Figure(f"mean best IoU of boxes with a score of at least {CONFIDENT}", float(np.mean(confident))),
        Figure("mean best IoU", float(np.mean(every)), 0.6),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning/align-isam"))
    folder = parser.parse_args().output_dir
    started = time.perf_counter()
    rows = save_rows(folder / "rows", wanted)
    arguments = ["--stage", "align-isam", "--config", str(CONFIG), "--dataset_name", str(rows)]
    arguments += ["--eval_split", "train", "--output_dir", str(folder / "run")]
    if status := train(arguments):
        return status
    return conclude(measure(rows, folder / "run"), started=started)


if __name__ == "__main__":
    sys.exit(main())
