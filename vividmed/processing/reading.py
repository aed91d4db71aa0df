"""Read 2D images (PNG, JPEG, TIFF, ...), NIfTI volumes, DICOM files and series, and arrays as :class:`MedicalImage`.

The grid of the file is kept: arrays come in the axis order (z, y, x), which is the file's own (x, y, z) reversed, and
the affine belongs to that grid. Masks and boxes of a data set are drawn on this grid. The image is turned
and resized for the model later, by an invertible plan (:mod:`vividmed.processing.geometry`).
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vividmed.errors import VividMedError
from vividmed.processing.dicom import is_dicom, read_dicom_file, read_dicom_series
from vividmed.processing.file_errors import first_line, readable_as
from vividmed.processing.grey_bmp import read_grey_bmp
from vividmed.processing.limits import check_slice_size, raise_pillow_limit
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.nifti import is_nifti, load_nifti, nifti_from_bytes, read_nifti

ImageSource = str | Path | Image.Image | np.ndarray | torch.Tensor | SpatialImage | MedicalImage

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_VOLUMES = (".nii", ".nii.gz")
_DICOM = (".dcm", ".dicom", ".ima")
_PICTURE = "2D image"


def read_image(source: ImageSource, *, voi_window: bool = False) -> MedicalImage:
    """Read one image.

    Args:
        source: path of a 2D image, a NIfTI file, a DICOM file or a folder that contains one DICOM series; a PIL image; a
            NIfTI image of nibabel; an array or tensor: (H, W), (D, H, W), (C, D, H, W) with 1 or 3 channels, or a
            colour image, (H, W, 3 or 4) as an array and (3, H, W) as a tensor. Arrays have no geometry and are used
            as they are.
        voi_window: apply the display window that a DICOM file asks for.

    Raises:
        VividMedError: the file is missing, unreadable, truncated, of an unknown type, larger than the limits of
            :mod:`vividmed.processing.limits`, or not one 2D or 3D image.
    """
    if isinstance(source, MedicalImage):
        return source
    if isinstance(source, str | Path):
        return _read_path(source, voi_window=voi_window)
    if isinstance(source, Image.Image):
        return _read_picture(source, "PIL image")
    if isinstance(source, SpatialImage):
        return read_nifti(lambda: source, source.get_filename() or "NIfTI image")
    if isinstance(source, np.ndarray | torch.Tensor):
        return _from_array(source)
    raise VividMedError(
        f"cannot read an image from a {type(source).__name__}; give a path, PIL image, numpy array, torch tensor, "
        "nibabel image or MedicalImage"
    )


def read_encoded(content: bytes, source: str) -> MedicalImage:
    """Read the content of a NIfTI file (compressed or not) or of a 2D image file.

    Args:
        content: the whole file.
        source: what to call it in errors, such as a row and its column.

    Raises:
        VividMedError: as :func:`read_image`.
    """
    if is_nifti(content):
        return read_nifti(lambda: nifti_from_bytes(content, source), source)
    grey = read_grey_bmp(content)
    if grey is not None:
        check_slice_size(source, *grey.shape)
        return MedicalImage(grey[None, None], picture_affine(), source=source)
    raise_pillow_limit()
    try:
        with readable_as(source, _PICTURE), Image.open(BytesIO(content)) as picture:
            return _read_picture(picture, source)
    except VividMedError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise VividMedError(
                f"{source}: not a 2D image or NIfTI file of a known type; give a PNG, JPEG or NIfTI file"
            ) from error
        raise


def as_list(images: ImageSource | Sequence[ImageSource] | None) -> list[ImageSource]:
    """One image, several or none as a list."""
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def _read_path(source: str | Path, *, voi_window: bool) -> MedicalImage:
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir() and bool(str(source).strip()), path.is_file()
        empty = is_file and path.stat().st_size == 0
    except (OSError, ValueError) as error:
        raise VividMedError(
            f"{_short(path)}: not a usable path ({_reason(error)}); check the path"
        ) from error
    if is_folder:
        with readable_as(path, "folder", "check its permissions"):
            return read_dicom_series(path, voi_window=voi_window)
    if not is_file:
        raise VividMedError(f"{_short(source)}: no such file; check the path")
    if empty:
        raise VividMedError(f"{path}: the file is empty; copy it again")
    name = path.name.lower()
    if name.endswith(_PICTURES):
        raise_pillow_limit()
        with readable_as(path, _PICTURE), Image.open(path) as picture:
            return _read_picture(picture, str(path))
    if name.endswith(_VOLUMES):
        return read_nifti(lambda: load_nifti(path), str(path))
    with readable_as(path, "file", "check its permissions"):
        if name.endswith(_DICOM) or is_dicom(path):
            return read_dicom_file(path, voi_window=voi_window)
    raise VividMedError(
        f"{path}: unknown file type; give {', '.join((*_PICTURES, *_VOLUMES))}, a DICOM file or a folder with a DICOM "
        "series"
    )


def _short(path: str | Path) -> str:
    """A path in printable characters, its middle left out if it is very long."""
    text = "".join(character if character.isprintable() else "?" for character in str(path)) or repr("")
    return text if len(text) <= 300 else f"{text[:150]}...{text[-100:]}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _read_picture(picture: Image.Image, source: str) -> MedicalImage:
    with readable_as(source, _PICTURE):
        check_slice_size(source, picture.height, picture.width)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise VividMedError(f"{source}: contains {frames} 2D images; save the one to use, or use NIfTI")
        picture.load()
        return _from_picture(picture, source)


def _from_picture(picture: Image.Image, source: str) -> MedicalImage:
    # An image that is upright already would be copied.
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "RGB", "F", "I") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    array = np.array(picture)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return MedicalImage(array[:, None], picture_affine(), source=source)


def _from_array(source: np.ndarray | torch.Tensor) -> MedicalImage:
    if isinstance(source, torch.Tensor):
        name, colour = "tensor", source.ndim == 3 and source.shape[0] == 3
        source = source.detach().cpu()
        array = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    else:
        name, colour = "array", source.ndim == 3 and source.shape[-1] in (3, 4)
        array = source[..., :3].transpose(2, 0, 1) if colour else source
    if colour:
        array = array[:, None]
    elif array.ndim in (2, 3):
        array = array.reshape(1, -1, *array.shape[-2:]) if array.size else array.reshape(1, 0, 0, 0)
    return MedicalImage(array, picture_affine(), source=name)
