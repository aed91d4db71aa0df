"""Phantoms as a hospital has them: images with plain reports, and masks of a program that knows no report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from datasets import Dataset
from scipy import ndimage
from scipy.special import softmax

from benchmarks.learning.phantom_studies import NODULE, Phantom, marked_report, report_row
from vividmed.data.schema import schema
from vividmed.data.terms import DatasetTerms, write_terms

_TERMS = DatasetTerms(
    name="generated phantom",
    licence="CC0-1.0",
    access="open",
    redistribute="yes",
    homepage="benchmarks/learning",
    citation="generated",
)
# Intensities of the surroundings, lungs, heart and nodules, the noise around them, and how much neighbours count.
_INTENSITIES = (-150.0, -350.0, 100.0, 400.0)
_NOISE = 60.0
_SMOOTHNESS = 10.0
_ROUNDS = 6


def write_plain_rows(folder: Path, phantoms: Sequence[Phantom]) -> None:
    """Write vision_language rows with plain reports, and their terms."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = Dataset.from_list([plain_row(phantom) for phantom in phantoms], features=schema("vision_language"))
    rows.to_parquet(folder / "train.parquet")
    write_terms(folder, _TERMS)


def plain_row(phantom: Phantom) -> dict[str, Any]:
    """A row with the report of a phantom, without phrases and places."""
    report = marked_report(phantom).replace("<p>", "").replace("</p>", "")
    common = {
        name: value
        for name, value in report_row(phantom).items()
        if name in ("id", "patient", "images", "volumes", "modality", "source", "licence")
    }
    turns = [("user", "Write the findings."), ("assistant", f"Findings: {report}")]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {**common, "plane": "axial", "kind": "report", "messages": messages}


def write_masks(folder: Path, phantoms: Sequence[Phantom]) -> None:
    """Write a folder per phantom with a mask per structure, made from its intensities."""
    for phantom in phantoms:
        case = folder / f"{phantom.name}-report"
        case.mkdir(parents=True, exist_ok=True)
        for name, mask in segment(phantom.volume, phantom.affine).items():
            stored = nib.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), phantom.affine)
            nib.save(stored, case / f"{name}.nii.gz")


def segment(volume: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Segment a phantom without the truth, by its intensities and because structures are smooth.

    A Markov random field: a voxel belongs to the structure that its intensity and the voxels around it suggest, found by
    mean-field iterations. Lungs contain their nodules.

    Args:
        volume: (D, H, W).
        affine: voxel index (x, y, z) to RAS+ mm.

    Returns:
        A mask (D, H, W) by name, of the structures that were found.
    """
    means = np.reshape(_INTENSITIES, (-1, 1, 1, 1))
    evidence = -(((volume - means) / _NOISE) ** 2) / 2
    belief = softmax(evidence, axis=0)
    for _ in range(_ROUNDS):
        nearby = ndimage.gaussian_filter(belief, sigma=(0, 0.5, 1, 1), mode="nearest")
        belief = softmax(evidence + _SMOOTHNESS * nearby, axis=0)
    _, lung, heart, nodule = (belief.argmax(axis=0) == number for number in range(len(_INTENSITIES)))
    lungs = ndimage.binary_fill_holes(lung | nodule) & ~heart
    # The lungs lie on both sides of the middle of the image.
    x = np.arange(volume.shape[2])
    on_right = affine[0, 0] * (x - (len(x) - 1) / 2) > 0
    masks = {"right lung": lungs & on_right, "left lung": lungs & ~on_right, "heart": heart, NODULE: nodule}
    return {name: mask for name, mask in masks.items() if mask.any()}
