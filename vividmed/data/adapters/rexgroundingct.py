"""ReXGroundingCT: findings of chest CT reports, each with a mask, on volumes of CT-RATE.

The origin contains ``dataset`` of CT-RATE (second release) and ``ReXGroundingCT`` with ``dataset.json`` and
``segmentations``: 4D files with one mask per finding along the first axis, on the grid of the volume.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.data.adapters.base import (
    Case,
    DrawnMasks,
    ImageFile,
    Listed,
    Skipped,
    Split,
    each_case,
    numbered,
    register,
)
from vividmed.data.adapters.ct_rate_family import (
    LICENCE,
    REXGROUNDINGCT,
    CTRATEAdapter,
    held_out_patients,
    listed_volumes,
    patient_of,
    split_of,
    volume_name,
    volume_path,
)
from vividmed.data.raw.documents import is_file
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.raw.report_text import clean_text
from vividmed.errors import VividMedError
from vividmed.processing.file_errors import readable_as
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.nifti import load_nifti

_ANY_FINDING = "abnormality"
_CATEGORIES = {
    "1a": "bronchial wall thickening",
    "1b": "bronchiectasis",
    "1c": "emphysema",
    "1d": "septal thickening",
    "1e": "micronodule",
    "2a": "linear opacity",
    "2b": "pulmonary opacification",  # atelectasis or consolidation
    "2c": "ground-glass opacity",
    "2d": "lung nodule",
    "2f": "honeycombing",
    "2g": "pneumothorax",
}
"""Categories that are one target; 1f and 2h are other findings, 2e is effusion or thickening of the pleura."""


@register
class ReXGroundingCT(CTRATEAdapter):
    """Training masks show up to three places of a finding, validation masks show all of them."""

    name = "rexgroundingct"
    title = "ReXGroundingCT"
    row_kind = "grounded_report"
    targets = (*_CATEGORIES.values(), _ANY_FINDING)
    licence = f"agreement on the Hub (masks and text; not confirmed), {LICENCE} (volumes)"
    redistribute = "no"
    terms = "The Hub repository is gated, and whether prepared data may be shared behind the same gate is not known."
    homepage = "https://huggingface.co/datasets/rajpurkarlab/ReXGroundingCT"
    citation = (
        "Baharoon et al. ReXGroundingCT: A 3D Chest CT Dataset for Segmentation of Findings from Free-Text Reports. "
        "arXiv:2507.22030, 2025."
    )
    layout = {REXGROUNDINGCT: 1, "ReXGroundingCT/segmentations/*.nii.gz": 3042}
    gigabytes = 700.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        items = (
            (volume_name(entry["name"]), (part, entry))
            for part, entry in listed_volumes(origin / REXGROUNDINGCT)
        )
        yield from each_case(items, partial(_case, origin=origin, held_out=held_out_patients(origin)))


def _case(item: tuple[str, Mapping[str, Any]], *, origin: Path, held_out: dict[str, Split]) -> Case | Skipped:
    part, entry = item
    volume = volume_name(entry["name"])
    masks = origin / f"ReXGroundingCT/segmentations/{volume}.nii.gz"
    if not is_file(masks):
        return Skipped(volume, "its masks are withheld or missing")
    patient = patient_of(volume)
    names = _names(entry.get("findings") or {}, entry.get("categories") or {})
    report, phrases = mark_sentences((entry["findings"][index], [name]) for index, name in names.items())
    if not phrases:
        return Skipped(volume, "its report has no findings")
    channels = tuple((name, int(index)) for index, name in names.items())
    targets = tuple(names.values())
    return Case(
        id=volume,
        patient=patient,
        split=split_of(patient, held_out),
        images=(ImageFile(path=volume_path(origin, volume), modality="CT", plane="axial"),),
        annotations=(DrawnMasks(targets, partial(_draw, masks, channels), (masks,)),),
        incomplete=targets if part == "train" else (),
        report=f"Findings: {report}",
        phrases=phrases,
    )


def _names(findings: Mapping[str, Any], categories: Mapping[str, Any]) -> dict[str, str]:
    """Index of each finding that has a text to the name of its mask, which is unique in the report."""
    return {
        index: numbered(_CATEGORIES.get(str(categories.get(index)), _ANY_FINDING), int(index) + 1)
        for index, text in findings.items()
        if clean_text(text)
    }


def _draw(
    path: Path, channels: tuple[tuple[str, int], ...], image: MedicalImage
) -> Iterable[tuple[str, np.ndarray]]:
    """Masks of one volume. The axes are judged by the shape, because a 4D header does not describe them."""
    with readable_as(path, "NIfTI file"):
        stored = load_nifti(path)
        size = image.size[::-1]
        if stored.shape == size and len(channels) == 1:
            array = np.asanyarray(stored.dataobj)[None]
        elif stored.shape[1:] == size:
            array = np.asanyarray(stored.dataobj)
        else:
            raise VividMedError(
                f"{path}: the shape is {stored.shape}; one mask per finding on the grid {size} of the volume is needed"
            )
    for name, channel in channels:
        if channel >= len(array):
            raise VividMedError(
                f"{path}: contains {len(array)} masks and so none for finding {channel}; copy the data set again"
            )
        yield name, array[channel].T != 0
