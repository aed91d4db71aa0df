"""Results as JSON: texts, places, masks and files."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.data.masks import pack_mask
from vividmed.errors import VividMedError
from vividmed.export.findings import Finding, collect_findings
from vividmed.export.nifti import encode_mask
from vividmed.inference.predictor import Result
from vividmed.inference.results import check_formats, describe, save_result
from vividmed.processing.medical_image import MedicalImage


def describe_result(
    result: Result, *, masks: str, formats: Sequence[str], folder: Path, model: str
) -> dict[str, Any]:
    """Describe a result as :class:`vividmed.serving.schemas.Grounding`.

    Args:
        result: of one scan.
        masks: encoding of the masks: ``nifti``, ``packed`` or ``none``.
        formats: files to add, see :func:`vividmed.inference.results.save_result`; one that needs a mask is left out if
            no phrase has one.
        folder: of the request; the files are written there.
        model: name of the model.

    Raises:
        VividMedError: a format is unknown, or the image does not allow it.
    """
    check_formats_of(result.image, formats)
    described = describe(result, {"model": model})
    findings = collect_findings(result.image, result.grounded)
    for phrase, finding in zip(described["phrases"], findings, strict=True):
        phrase |= {
            "mask": _mask(result, finding, masks),
            "slices": [int(index) for index in finding.slices()] if finding.found else None,
            "colour": list(finding.colour),
        }
    described["grid"] = {
        "size": list(result.image.size),
        "spacing_mm": list(result.image.spacing),
        "affine_xyz_to_ras_mm": np.asarray(result.image.affine).tolist(),
        "placed_in_patient": result.image.oriented,
    }
    described["files"] = [
        {"name": name, "format": format_name, "data": _base64(path.read_bytes())}
        for format_name in formats
        for name, path in export(result, format_name, folder / "export" / format_name, model=model)
    ]
    return described


def check_formats_of(image: MedicalImage, formats: Sequence[str]) -> None:
    """Check that an image can be exported in some formats.

    Raises:
        VividMedError: one is unknown, or needs DICOM files.
    """
    check_formats(formats)
    for name in formats:
        if name.startswith("dicom-") and not image.files:
            raise VividMedError(f"format {name}: needs a DICOM series; the image has another file type")


def export(result: Result, format_name: str, folder: Path, *, model: str) -> list[tuple[str, Path]]:
    """Write a result in one format.

    Returns:
        Name and path of each file; none if the format needs masks and no phrase has one.

    Raises:
        VividMedError: the format is unknown, or the image does not allow it.
    """
    save_result(result, folder, formats=[format_name], run={"model": model})
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if format_name != "json":
        paths = [path for path in paths if path.name != "result.json"]
    return [(str(path.relative_to(folder)), path) for path in paths]


def _mask(result: Result, finding: Finding, encoding: str) -> dict[str, Any] | None:
    if finding.mask is None or encoding == "none":
        return None
    if encoding == "nifti":
        return {"encoding": "nifti", "data": _base64(encode_mask(finding.mask, result.image)), "box": None}
    packed = pack_mask("", finding.mask)
    return {"encoding": "packed", "data": _base64(packed["bits"]), "box": packed["box"]}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
