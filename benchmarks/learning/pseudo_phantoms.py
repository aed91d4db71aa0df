"""Phantoms as a hospital has them: images with plain reports, and label maps of a program that knows no report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from datasets import Dataset
from scipy import ndimage

from benchmarks.learning.phantom_studies import Phantom, marked_report, report_row
from vividmed.data.schema import schema
from vividmed.data.terms import DatasetTerms, write_terms

VALUES = {"right lung": 1, "left lung": 2, "heart": 3, "lung nodule": 4}
NAMES = {"values": {str(value): name for name, value in VALUES.items()}, "names": {}}

_TERMS = DatasetTerms(
    name="generated phantom",
    licence="CC0-1.0",
    access="open",
    redistribute="yes",
    homepage="benchmarks/learning",
    citation="generated",
)
# Intensities half-way between those of the structures.
_LUNG, _SOFT, _NODULE = -250, -25, 275
_SMALLEST = 8


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


def write_label_maps(folder: Path, phantoms: Sequence[Phantom]) -> None:
    """Write a label map per phantom, made from its intensities."""
    folder.mkdir(parents=True, exist_ok=True)
    for phantom in phantoms:
        labels = segment(phantom.volume, phantom.affine)
        stored = nib.Nifti1Image(labels.transpose(2, 1, 0), phantom.affine)
        nib.save(stored, folder / f"{phantom.name}-report.nii.gz")


def segment(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Segment a phantom by thresholds, without the truth: lungs are dark, the heart is bright, nodules are brightest.

    Args:
        volume: (D, H, W).
        affine: voxel index (x, y, z) to RAS+ mm.

    Returns:
        (D, H, W) uint8, values of :data:`VALUES`.
    """
    smooth = ndimage.median_filter(volume, size=(1, 3, 3))
    labels = np.zeros(volume.shape, dtype=np.uint8)
    x = np.arange(volume.shape[2])
    # Two lungs of one size lie on both sides of the middle of the image.
    on_right = (affine[0, 0] * (x - (len(x) - 1) / 2) > 0)[None, None, :]
    lungs = ndimage.binary_fill_holes(smooth < _LUNG)
    nodules = _large(volume > _NODULE)
    heart = _large(
        (smooth > _SOFT) & (smooth < _NODULE + 50) & ~ndimage.binary_dilation(nodules, iterations=2)
    )
    lungs = (lungs | nodules) & ~heart
    labels[lungs & on_right] = VALUES["right lung"]
    labels[lungs & ~on_right] = VALUES["left lung"]
    labels[heart] = VALUES["heart"]
    labels[nodules] = VALUES["lung nodule"]
    return labels


def _large(mask: np.ndarray) -> np.ndarray:
    """The components of a mask that are more than noise."""
    parts, count = ndimage.label(mask)
    sizes = ndimage.sum(mask, parts, range(1, count + 1))
    return np.isin(parts, 1 + np.flatnonzero(np.asarray(sizes) >= _SMALLEST))
