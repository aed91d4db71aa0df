"""Encodes images for rows: PNG in 2D, NIfTI in 3D, eight bits per channel."""

import io

import nibabel as nib
import numpy as np
from PIL import Image

from vividmed.processing.medical_image import MedicalImage

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_MM_PER_INCH = 25.4
_UNKNOWN, _SCANNER = 0, 1


def encode_image(array: np.ndarray, image: MedicalImage, name: str) -> dict[str, str | bytes]:
    """Encode an image as a cell of an ``images`` or ``volumes`` column.

    Args:
        array: (C, D, H, W) uint8; a colour volume becomes grey.
        image: image whose affine applies to the array.
        name: name of the file, without its ending.

    Returns:
        ``bytes`` and ``path``. PNG keeps the pixel spacing, NIfTI the affine. NIfTI is not compressed, since Parquet is.
    """
    if array.shape[1] == 1:
        return {"bytes": _png(array[:, 0], image), "path": f"{name}.png"}
    grey = array[0] if array.shape[0] == 1 else np.rint(np.tensordot(_LUMA, array, 1)).astype(np.uint8)
    return {"bytes": _nifti(grey, image), "path": f"{name}.nii"}


def _png(array: np.ndarray, image: MedicalImage) -> bytes:
    picture = Image.fromarray(
        array[0] if array.shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
    )
    _, y, x = image.spacing
    stream = io.BytesIO()
    picture.save(stream, "PNG", **({} if x == y == 1.0 else {"dpi": (_MM_PER_INCH / x, _MM_PER_INCH / y)}))
    return stream.getvalue()


def _nifti(array: np.ndarray, image: MedicalImage) -> bytes:
    nifti = nib.Nifti1Image(array.T, image.affine)
    code = _SCANNER if image.oriented else _UNKNOWN
    nifti.set_sform(image.affine, code)
    nifti.set_qform(image.affine, code)
    nifti.header.set_xyzt_units("mm")
    return nifti.to_bytes()
