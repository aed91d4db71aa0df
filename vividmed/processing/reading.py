"""Read PNG, JPEG and TIFF pictures, NIfTI volumes, DICOM files and series, and arrays, into :class:`MedicalImage`.

The grid of the file is kept: arrays come in the axis order (z, y, x), which is the file's own (x, y, z) reversed, and
the affine belongs to that grid. Masks and boxes of a data set are drawn on this grid. What the model sees is turned
and resized later, by a plan that can be undone (:mod:`vividmed.processing.geometry`).
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError
from PIL import Image, ImageOps
from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.processing.dicom import is_dicom, read_dicom_file, read_dicom_series
from vividmed.processing.medical_image import MedicalImage, picture_affine, unreadable

logger = logging.get_logger(__name__)

ImageSource = str | Path | Image.Image | np.ndarray | torch.Tensor | SpatialImage | MedicalImage

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_VOLUMES = (".nii", ".nii.gz")
_NIFTI2_HEADER = (540).to_bytes(4, "little")
_BROKEN_FILE = (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile)
BROKEN_NIFTI = (*_BROKEN_FILE, ImageFileError, HeaderDataError, WrapStructError)
"""What :func:`load_nifti`, and reading voxels of what it gives, may raise."""


def read_image(source: ImageSource, *, voi_window: bool = False) -> MedicalImage:
    """Read one image.

    Args:
        source: path of a picture, a NIfTI file, a DICOM file or a folder that holds one DICOM series; a PIL image; a
            NIfTI image of nibabel; an array or tensor: (H, W), (D, H, W), (C, D, H, W) with 1 or 3 channels, or a
            colour picture, (H, W, 3 or 4) as an array and (3, H, W) as a tensor. Arrays have no geometry and are used
            as they are.
        voi_window: apply the display window that a DICOM file asks for.

    Raises:
        VividMedError: the file is missing, unreadable, truncated, of an unknown kind, or not one 2D or 3D image.
    """
    if isinstance(source, MedicalImage):
        return source
    if isinstance(source, str | Path):
        return _read_path(Path(source), voi_window=voi_window)
    if isinstance(source, Image.Image):
        return _from_picture(source, "PIL image")
    if isinstance(source, SpatialImage):
        return _read_nifti(lambda: source, source.get_filename() or "NIfTI image")
    if isinstance(source, np.ndarray | torch.Tensor):
        return _from_array(source)
    raise VividMedError(
        f"cannot read an image from a {type(source).__name__}; give a path, PIL image, numpy array, torch tensor, "
        "nibabel image or MedicalImage"
    )


def as_list(images: ImageSource | Sequence[ImageSource] | None) -> list[ImageSource]:
    """One image, several or none as a list."""
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def _read_path(path: Path, *, voi_window: bool) -> MedicalImage:
    if path.is_dir():
        return read_dicom_series(path, voi_window=voi_window)
    if not path.is_file():
        raise VividMedError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise VividMedError(f"{path}: the file is empty; copy it again")
    name = path.name.lower()
    if name.endswith(_PICTURES):
        return _read_picture(path)
    if name.endswith(_VOLUMES):
        return _read_nifti(lambda: load_nifti(path), str(path))
    if name.endswith((".dcm", ".dicom")) or is_dicom(path):
        return read_dicom_file(path, voi_window=voi_window)
    raise VividMedError(
        f"{path}: unknown kind of image; give {', '.join((*_PICTURES, *_VOLUMES))}, a DICOM file or a folder with a "
        "DICOM series"
    )


def _read_picture(path: Path) -> MedicalImage:
    try:
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise VividMedError(f"{path}: holds {frames} pictures; save the one to use, or use NIfTI")
            picture.load()
            return _from_picture(picture, str(path))
    except VividMedError:
        raise
    except (*_BROKEN_FILE, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, "picture", error) from error


def _from_picture(picture: Image.Image, source: str) -> MedicalImage:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "RGB", "F", "I") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    array = np.array(picture)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return MedicalImage(array[:, None], picture_affine(), source=source)


def load_nifti(path: Path) -> Any:
    """Open a NIfTI file with nibabel; a compressed one is read to its end, where a checksum tells damaged copies.

    Raises:
        OSError, EOFError, zlib.error, or an error of nibabel: the file is damaged.
    """
    if not path.name.lower().endswith(".gz"):
        return nib.load(path)
    content = gzip.decompress(path.read_bytes())
    second = _NIFTI2_HEADER in (content[:4], content[3::-1])
    image = (nib.Nifti2Image if second else nib.Nifti1Image).from_bytes(content)
    image.file_map["image"].filename = str(path)  # by which messages name it
    return image


def _read_nifti(load: Callable[[], Any], source: str) -> MedicalImage:
    try:
        return _from_nifti(load(), source)
    except VividMedError:
        raise
    except BROKEN_NIFTI as error:
        raise unreadable(source, "NIfTI file", error) from error


def _from_nifti(image: Any, source: str) -> MedicalImage:
    if not isinstance(image, SpatialImage):
        raise VividMedError(f"{source}: holds no volume but {type(image).__name__}; give a NIfTI image")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3):
        raise VividMedError(
            f"{source}: NIfTI of shape {image.shape} is not one 3D volume; save the volume to use alone"
        )
    array = np.asanyarray(image.dataobj).reshape(shape)
    if array.dtype.names:
        raise VividMedError(
            f"{source}: colour NIfTI files are not supported; save one channel, or use a picture"
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    if array.ndim == 2:
        array = array[..., None]
    header: Any = image.header
    if "sform_code" in header and not (header["sform_code"] or header["qform_code"]):
        logger.warning_once(
            f"{source}: the header does not say how the volume lies in the patient; left may be right"
        )
    return MedicalImage(array.T[None], image.affine, source=source, oriented=True)


def _from_array(source: np.ndarray | torch.Tensor) -> MedicalImage:
    if isinstance(source, torch.Tensor):
        colour = source.ndim == 3 and source.shape[0] == 3
        source = source.detach().cpu()
        array = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
        kind = "tensor"
    else:
        colour = source.ndim == 3 and source.shape[-1] in (3, 4)
        array = source[..., :3].transpose(2, 0, 1) if colour else source
        kind = "array"
    if colour:
        array = array[:, None]
    elif array.ndim in (2, 3):
        array = array.reshape(1, -1, *array.shape[-2:]) if array.size else array.reshape(1, 0, 0, 0)
    return MedicalImage(array, picture_affine(), source=kind)
