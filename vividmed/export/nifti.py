"""Write masks as NIfTI files on the grid of their image, with an index of phrases and boxes."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from vividmed.export.file_names import LABELS, MASK, MASK_INDEX
from vividmed.export.findings import Finding, collect_findings
from vividmed.files import write_atomically
from vividmed.processing.boxes import boxes_to_mm
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage

_COMPRESSION = 6
"""Level 9 takes ten times as long for masks that are a sixth smaller."""
_SCANNER, _ALIGNED = 1, 2
"""Codes of NIfTI for "scanner coordinates" and for "aligned to something else"."""


def save_masks(image: MedicalImage, grounded: GroundedText, folder: str | Path) -> Path:
    """Write masks, a label map and an index of the phrases.

    ``mask_NN.nii.gz`` is the mask of phrase NN, uint8 with 0 and 1. ``labels.nii.gz`` contains all masks, each with its
    phrase's number; where masks overlap, the smaller one is seen. All lie on the image's grid and state it as both
    sform and qform, so that they open wherever the image does. They are NIfTI-1 files, whose single precision rounds the
    affine by up to 1e-4 mm; only an axis of more than 32,767 voxels needs NIfTI-2. A qform cannot express the shear of a
    tilted gantry and then states the nearest grid without it.

    ``grounding.json`` is written last and lists what belongs to it: text, grid with the exact affine, and per phrase its
    number, span, mask file, volume and boxes, the latter as voxel corners (z0, y0, x0, z1, y1, x1), half-open, and as
    the box (x0, y0, z0, x1, y1, z1) around it in RAS+ mm. Of the image's header, only the grid is written.

    Args:
        image: the image as read.
        grounded: text, phrases, and their masks and boxes on the image's original grid.
        folder: folder to write to; created if missing.

    Returns:
        The index file.

    Raises:
        VividMedError: a mask of another grid, a box outside the image or inverted, a phrase outside the text, or a
            folder that cannot be written.
    """
    folder = Path(folder)
    findings = collect_findings(image, grounded)
    masks = {finding.number: finding.mask for finding in findings if finding.mask is not None}
    names = {number: MASK.format(number=number) for number in masks}
    for number, mask in masks.items():
        write_atomically(folder / names[number], encode_mask(mask, image))
    if masks:
        write_atomically(folder / LABELS, encode_nifti(_label_map(image, findings), image))
    index = {
        "text": grounded.text,
        "grid": {
            "axes": "zyx",
            "size": list(image.size),
            "spacing_mm": list(image.spacing),
            "affine_xyz_to_ras_mm": image.affine.tolist(),
            "placed_in_patient": image.oriented,
        },
        "labels": LABELS if masks else None,
        "phrases": [_entry(image, finding, names.get(finding.number)) for finding in findings],
    }
    content = json.dumps(index, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    write_atomically(folder / MASK_INDEX, content.encode())
    return folder / MASK_INDEX


def encode_mask(mask: np.ndarray, image: MedicalImage) -> bytes:
    """Encode a mask (D, H, W) as a compressed NIfTI file on the grid of its image."""
    return encode_nifti(mask.astype(np.uint8), image)


def _label_map(image: MedicalImage, findings: list[Finding]) -> np.ndarray:
    labels = np.zeros(image.size, dtype=np.uint8 if len(findings) < 256 else np.uint16)
    for finding in sorted(findings, key=lambda finding: -finding.extent):
        if finding.mask is not None:
            labels[finding.mask] = finding.number
    return labels


def _entry(image: MedicalImage, finding: Finding, mask_name: str | None) -> dict:
    voxels = 0 if finding.mask is None else int(finding.extent)
    world = boxes_to_mm(torch.from_numpy(finding.boxes), image.affine).tolist()
    scores: list[float | None] = [*finding.scores] or [None] * len(finding.boxes)
    return {
        "number": finding.number,
        "text": finding.text,
        "start": finding.start,
        "end": finding.end,
        "mask": mask_name,
        "voxels": voxels,
        "volume_ml": voxels * abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000,
        "boxes": [
            {"voxels_zyx": box, "mm_ras": mm, "score": score}
            for box, mm, score in zip(finding.boxes.tolist(), world, scores, strict=True)
        ],
    }


def encode_nifti(array: np.ndarray, image: MedicalImage) -> bytes:
    """Encode an array as a compressed NIfTI file on the grid of its image; (D, H, W) is written as (x, y, z)."""
    fits = max(image.size) <= np.iinfo(np.int16).max
    nifti = (nib.Nifti1Image if fits else nib.Nifti2Image)(array.T, None)
    code = _SCANNER if image.oriented else _ALIGNED
    nifti.set_qform(image.affine, code)
    nifti.set_sform(image.affine, code)
    nifti.header.set_xyzt_units("mm")
    return gzip.compress(nifti.to_bytes(), compresslevel=_COMPRESSION, mtime=0)
