"""Folders to publish: prepared data sets and saved models in miniature."""

import itertools
import shutil

import nibabel as nib
import numpy as np
from datasets import Dataset
from PIL import Image
from safetensors.numpy import save_file

from tests.data.test_terms import make_terms
from tests.hub.test_dataset_cards import make_facts
from vividmed.data.masks import pack_mask
from vividmed.data.schema import LOCALIZATION
from vividmed.data.terms import write_provenance
from vividmed.hub.dataset_cards import render_dataset_card

OPEN = make_terms()
CLOSED = make_terms(name="closed-set", licence="DUA 1.0", redistribute="no", terms="Ask the owners.")
ON_REQUEST = make_terms(name="request-set", access="registered", redistribute="derived_gated")
CREDENTIALED = make_terms(name="signed-set", access="credentialed", redistribute="derived_gated")
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])


def make_row(number, *, volume):
    grid = np.random.default_rng(number).integers(0, 255, (6, 5, 4), dtype=np.uint8)  # (x, y, z)
    mask = np.zeros((4, 5, 6) if volume else (1, 5, 6), bool)
    mask[..., 1:3, 2:4] = True
    return {
        "id": f"case-{number}",
        "patient": f"p{number}",
        "images": [] if volume else [Image.fromarray(grid[:, :, 0].T)],
        "volumes": [nib.Nifti1Image(grid, AFFINE)] if volume else [],
        "modality": "CT" if volume else "X-ray",
        "targets": ["liver"],
        "absent": ["spleen"],
        "masks": [pack_mask("liver", mask)],
        "boxes": [],
        "incomplete": [],
        "source": "chest-set",
        "licence": "CC BY 4.0",
    }


def prepare(folder, terms=OPEN, *, shards=2, first=0):
    """A prepared data set with two kinds of images, and files that must not leave; rows count from ``first``."""
    (folder / "data").mkdir(parents=True)
    (folder / ".work").mkdir()
    numbers = itertools.count(first)
    for split, parts in (("train", shards), ("test", 1)):
        for part in range(parts):
            rows = [make_row(next(numbers), volume=True), make_row(next(numbers), volume=False)]
            path = folder / "data" / f"{split}-{part:05d}-of-{parts:05d}.parquet"
            Dataset.from_list(rows, features=LOCALIZATION).to_parquet(path)
    (folder / "failures.csv").write_text("case,reason\nDOE^JANE,truncated\n")
    shutil.copy(path, folder / ".work" / "train-part.parquet")
    facts = make_facts(
        terms, rows={"train": 2 * shards, "test": 2}, modality_rows={"CT": {"test": 1}}, target_rows={}
    )
    (folder / "README.md").write_text(render_dataset_card(facts))
    return folder


def make_model(folder, *training_data):
    folder.mkdir()
    save_file({"weight": np.arange(6, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "vividmed"}\n')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Model\n\nNot a medical device.\n")
    (folder / "samples.jsonl").write_text('{"answer": "seen by Dr. Miller"}\n')
    (folder / "optimizer.pt").write_bytes(b"state")
    if training_data:
        write_provenance(folder, training_data)
    return folder
