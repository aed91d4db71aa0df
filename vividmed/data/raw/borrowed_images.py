"""Images that a data set annotates but does not contain: they are found among the files of their owners."""

from dataclasses import replace
from glob import escape
from pathlib import Path

import nibabel as nib
import numpy as np

from vividmed.data.raw.annotation import Annotation
from vividmed.data.raw.case import Case, ImageFile, Skipped
from vividmed.data.raw.images import read_original
from vividmed.processing.medical_image import MedicalImage

Located = tuple[str, str, list[Path]]
"""Id of the case, key of the patient, and the files or folders that may be its image."""


def case_of_only_image(key: str, patient: str, found: list[Path], annotation: Annotation) -> Case | Skipped:
    """Make a case of a CT scan if exactly one image fits its annotation.

    Args:
        key: id of the case.
        patient: key of the patient.
        found: files or folders that may be the image.
        annotation: of the scan.
    """
    if len(found) != 1:
        names = ", ".join(path.name for path in annotation.files())
        return Skipped(key, f"{len(found)} images fit {names}; copy or link exactly one into the data set")
    read = None if found[0].is_dir() else read_like_itk
    return Case(
        id=key,
        patient=patient,
        images=(ImageFile(path=found[0], modality="CT", read=read),),
        annotations=(annotation,),
    )


def read_like_itk(path: Path) -> MedicalImage:
    """Read a NIfTI file; one that does not place its volume in the patient was written from DICOM by ITK.

    The axes of such a file point left, back and up, whereas nibabel takes them to point left, forward and up. ITK itself
    is not suitable as a reader: it pads truncated files.
    """
    image = read_original(path)
    header = nib.Nifti1Image.from_filename(path).header
    if header["sform_code"] or header["qform_code"]:
        return image
    x, y, z = header.get_zooms()[:3]
    return replace(image, affine=np.diag([-x, -y, z, 1.0]))


def series_folders(subject: Path, number: str) -> list[Path]:
    """Folders of a TCIA subject that contain the series of a number: ``<subject>/<study>/<number>.000000-<text>``."""
    return sorted(path for path in subject.glob(f"*/{escape(number)}.*") if path.is_dir())
