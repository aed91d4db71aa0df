"""Encodes images for rows: BMP in 2D, NIfTI in 3D, eight bits per channel.

Neither is compressed, since Parquet compresses whole columns, and a row that is read from the cache of a loaded data set
need not be decompressed: a BMP file is read more than ten times as fast as a PNG file. All common tools open both.
"""

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
        ``bytes`` and ``path``. BMP keeps the pixel spacing, NIfTI the affine.
    """
    if array.shape[1] == 1:
        return {"bytes": _bmp(array[:, 0], image), "path": f"{name}.bmp"}
    grey = array[0] if array.shape[0] == 1 else np.rint(np.tensordot(_LUMA, array, 1)).astype(np.uint8)
    return {"bytes": _nifti(grey, image), "path": f"{name}.nii"}


def _bmp(array: np.ndarray, image: MedicalImage) -> bytes:
    picture = Image.fromarray(
        array[0] if array.shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
    )
    _, y, x = image.spacing
    stream = io.BytesIO()
    # Zero stands for an unknown resolution.
    picture.save(stream, "BMP", dpi=(0, 0) if x == y == 1.0 else (_MM_PER_INCH / x, _MM_PER_INCH / y))
    return stream.getvalue()


def _nifti(array: np.ndarray, image: MedicalImage) -> bytes:
    nifti = nib.Nifti1Image(array.T, image.affine)
    code = _SCANNER if image.oriented else _UNKNOWN
    nifti.set_sform(image.affine, code)
    nifti.set_qform(image.affine, code)
    nifti.header.set_xyzt_units("mm")
    return nifti.to_bytes()
