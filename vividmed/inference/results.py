"""A result as files, one folder per scan."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vividmed.errors import VividMedError
from vividmed.export import file_names, html, overlay, save_masks
from vividmed.export.measurements import MEASURED_BY, measure
from vividmed.export.notice import NOTICE
from vividmed.export.pdf import check_reportlab, save_pdf
from vividmed.files import write_atomically
from vividmed.inference.predictor import Result
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__

RESULT = "result.json"

FORMATS = ("json", "png", "html", "nifti", "pdf", "dicom-seg", "dicom-sr", "dicom-pdf")
_FILES = (
    file_names.OVERLAY,
    file_names.PAGE,
    file_names.DOCUMENT,
    file_names.SEGMENTATION,
    file_names.STRUCTURED_REPORT,
    file_names.ENCAPSULATED_DOCUMENT,
)
_MASK_FILES = (file_names.MASK_PATTERN, file_names.LABELS, file_names.MASK_INDEX)
DEFAULT_FORMATS = ("json", "png", "html", "nifti")


def check_formats(formats: Sequence[str]) -> None:
    """Check names of formats.

    Raises:
        VividMedError: one is unknown, or its package is not installed.
    """
    for name in formats:
        if name not in FORMATS:
            raise VividMedError(f"format {name!r} is unknown; use {', '.join(FORMATS)}")
    if {"pdf", "dicom-pdf"} & set(formats):
        check_reportlab()


def usable_formats(image: MedicalImage, formats: Sequence[str]) -> list[str]:
    """The formats that an image can have: those of DICOM need DICOM files, but are kept where nothing else is asked for.

    Args:
        image: as read.
        formats: what was asked for.
    """
    others = [name for name in formats if not name.startswith("dicom-")]
    return list(formats) if image.files or not set(others) - {"json"} else others


def save_result(
    result: Result,
    folder: str | Path,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    run: dict[str, Any] | None = None,
) -> None:
    """Write a result; ``result.json`` is always written, and last, so that it stands for a complete folder.

    Args:
        result: of one scan.
        folder: for the files of this scan.
        formats: ``png`` (overlay), ``html`` (interactive page), ``nifti`` (masks), ``pdf`` (report), and of DICOM files
            ``dicom-seg`` (masks), ``dicom-sr`` (report, with its masks) and ``dicom-pdf`` (the PDF as an object).
        run: what the result comes from, such as the model's name; kept in ``result.json``.

    Raises:
        VividMedError: a format is unknown, or the folder cannot be written.
    """
    check_formats(formats)
    folder = Path(folder)
    model = str((run or {}).get("model", ""))
    for name in formats:
        if name != "json":
            _write(name, result, folder, model)
    write_atomically(folder / RESULT, json.dumps(describe(result, run), indent=2, ensure_ascii=False) + "\n")


def _write(name: str, result: Result, folder: Path, model: str) -> None:
    image, grounded = result.image, result.grounded
    if name == "png":
        overlay(image, grounded, folder / file_names.OVERLAY)
    elif name == "html":
        html(image, grounded, folder / file_names.PAGE)
    elif name == "nifti":
        save_masks(image, grounded, folder / file_names.MASK_FOLDER)
    elif name == "pdf":
        save_pdf(image, grounded, folder / file_names.DOCUMENT, model=model)
    elif name == "dicom-pdf":
        from vividmed.export.dicom_pdf import save_dicom_pdf

        save_dicom_pdf(image, grounded, folder / file_names.ENCAPSULATED_DOCUMENT, model=model)
    elif name == "dicom-sr":
        from vividmed.export.dicom_sr import save_dicom_sr

        save_dicom_sr(image, grounded, folder, model=model)
    elif any(phrase.mask is not None for phrase in grounded.phrases):
        from vividmed.export.dicom_seg import save_dicom_seg

        save_dicom_seg(image, grounded, folder / file_names.SEGMENTATION, model=model)


def read_run(folder: Path) -> dict[str, Any] | None:
    """What the complete result in a folder says it comes from; None without one."""
    try:
        run = json.loads((folder / RESULT).read_text(encoding="utf-8"))["run"]
        return run if isinstance(run, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_result(folder: Path) -> None:
    """Remove the files of an earlier result, its index first, and what a killed run has left half-written.

    Files of other names stay.

    Raises:
        VividMedError: a file cannot be removed.
    """
    masks = ("mask_*.nii.gz", "labels.nii.gz", "grounding.json")
    patterns = (RESULT, *_FILES, *(f"masks/{name}" for name in masks), ".*.partial", "masks/.*.partial")
    try:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        for emptied in (folder / file_names.MASK_FOLDER, folder):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()
    except OSError as error:
        raise VividMedError(f"{folder}: cannot be written ({error.strerror or error})") from error


def describe(result: Result, run: dict[str, Any] | None = None) -> dict[str, Any]:
    """A result as JSON: what the model wrote, and apart from it what was measured on its masks."""
    phrases = []
    for number, phrase in enumerate(result.grounded.phrases, start=1):
        measured = None if phrase.mask is None else measure(result.image, phrase.mask)
        phrases.append(
            {
                "number": number,
                "text": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "presence": phrase.presence,
                "has_mask": phrase.mask is not None,
                "boxes": phrase.boxes.tolist(),
                "boxes_mm": phrase.boxes_mm.tolist(),
                "scores": phrase.scores.tolist(),
                "measured": None if measured is None else asdict(measured),
            }
        )
    return {
        "notice": NOTICE,
        "task": result.task,
        "question": result.question,
        "text": result.grounded.text,
        "phrases": phrases,
        "measured_by": f"{MEASURED_BY} {__version__}, on the masks; not written by the model",
        "size": list(result.image.size),
        "run": {**(run or {}), "vividmed": __version__},
    }
