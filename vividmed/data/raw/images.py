"""Reads images of original data sets: the formats of the processor, and those that only data sets use."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vividmed.data.raw.archives import read_zipped
from vividmed.errors import VividMedError
from vividmed.processing.file_errors import readable_as
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.nifti import load_nifti, nifti_affine
from vividmed.processing.reading import read_image

_ITK_FORMATS = (".nrrd", ".nhdr", ".mha", ".mhd")


def read_original(
    path: Path, *, channel: int | None = None, read: Callable[[Path], MedicalImage] | None = None
) -> MedicalImage:
    """Read an image or a label map as it is stored.

    Args:
        path: NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or DICOM file, a folder with one DICOM series, or a zip archive of
            one of these.
        channel: index along the last axis of a 4D NIfTI file.
        read: function that reads the path instead.

    Raises:
        VividMedError: The path cannot be read, or does not contain exactly one image.
    """
    if read is not None:
        return read(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return read_zipped(path, partial(read_original, channel=channel))
    if channel is not None:
        return _read_channel(path, channel)
    if path.name.lower().endswith(_ITK_FORMATS):
        return read_itk(path)
    return read_image(path)


def read_itk(path: Path) -> MedicalImage:
    """Read a NRRD or MetaImage volume.

    Raises:
        VividMedError: The file cannot be read, or SimpleITK is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise VividMedError(
            f"{path}: NRRD and MetaImage files need SimpleITK; install vividmed[prepare]"
        ) from error
    if not path.is_file():
        raise VividMedError(f"{path}: no such file; check that the data set is complete")
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VividMedError(f"{path}: not a readable image ({reason}); copy it again") from error
    if image.GetDimension() != 3:
        raise VividMedError(f"{path}: the image has {image.GetDimension()} dimensions; give one 3D volume")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # ITK's axes point to the left and to the back
    array = SimpleITK.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    return MedicalImage(array, affine, source=str(path), oriented=True)


def _read_channel(path: Path, channel: int) -> MedicalImage:
    if not path.is_file():
        raise VividMedError(f"{path}: no such file; check that the data set is complete")
    with readable_as(path, "NIfTI file"):
        image = load_nifti(path)
        if image.ndim != 4 or not 0 <= channel < image.shape[3]:
            raise VividMedError(
                f"{path}: the shape {image.shape} has no channel {channel} along a 4th axis; give a 4D file with all sequences"
            )
        array = np.asarray(image.dataobj[..., channel])
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    return MedicalImage(
        array.T[None], nifti_affine(image, str(path)), source=f"{path} [{channel}]", oriented=True
    )
