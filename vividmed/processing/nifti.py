"""Read NIfTI-1 and NIfTI-2 volumes. Sizes are checked before a voxel is read or expanded."""

import math
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError, SpatialImage
from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.processing.file_errors import readable_as
from vividmed.processing.limits import check_image_size
from vividmed.processing.medical_image import MedicalImage

logger = logging.get_logger(__name__)

_FILE_TYPE = "NIfTI file"
_GZIP = b"\x1f\x8b"
_HEADER_SIZES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_HEADER_BYTES = 544
_CHUNK = 1 << 20
_LARGEST_RATIO = 1100
"""Deflate shrinks data by a factor of 1032 at most."""
_LARGEST_TRAILER = 1 << 24
"""Bytes that may follow the voxels in a compressed file."""
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_DISAGREEMENT = 0.01
"""Millimetres by which the corners of the volume may differ between sform and qform."""


def load_nifti(path: Path) -> Any:
    """Open a NIfTI file with nibabel.

    A compressed file is read to its end, where a checksum reveals damaged copies; the voxels of others are read when
    they are used, which may fail: wrap that in :func:`vividmed.processing.file_errors.readable_as`.

    Raises:
        VividMedError: the file is missing, damaged, not NIfTI, or larger than the limit.
    """
    with readable_as(path, _FILE_TYPE), LoggingOutputSuppressor():
        with path.open("rb") as stream:
            compressed = stream.read(2) == _GZIP
        if not compressed:
            with path.open("rb") as stream:
                _checked_header(stream.read(_HEADER_BYTES), path.stat().st_size, str(path))
            return nib.load(path)
        with path.open("rb") as stream:
            return _from_gzip(stream, path.stat().st_size, str(path))


def nifti_from_bytes(content: bytes, source: str) -> Any:
    """Open the content of a NIfTI file, compressed or not, with nibabel.

    Args:
        content: the whole file.
        source: what to call it in errors.

    Raises:
        VividMedError: the content is damaged, not NIfTI, or larger than the limit.
    """
    with readable_as(source, _FILE_TYPE), LoggingOutputSuppressor():
        if content[:2] == _GZIP:
            return _from_gzip(BytesIO(content), len(content), source)
        _checked_header(content[:_HEADER_BYTES], len(content), source)
        return _image_class(content).from_bytes(content)


def is_nifti(content: bytes) -> bool:
    """Whether bytes are the beginning of a NIfTI file, compressed or not."""
    return content[:2] == _GZIP or _header_size(content) in _HEADER_SIZES


def read_nifti(load: Callable[[], Any], source: str) -> MedicalImage:
    """Turn an image of nibabel into a volume in mm.

    Args:
        load: gives the image; called inside the handling of damaged files.
        source: file, for errors.

    Raises:
        VividMedError: the image is damaged, larger than the limit, in colour, or not one 2D or 3D image.
    """
    with readable_as(source, _FILE_TYPE):
        return _to_volume(load(), source)


def nifti_affine(image: Any, source: str) -> np.ndarray:
    """Affine of an image of nibabel, voxel index (x, y, z) to RAS+ mm, whatever unit its header states.

    Warns if the header does not place the volume in the patient, or places it in two different ways.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    header = image.header
    if "sform_code" not in header:
        return affine
    if not (header["sform_code"] or header["qform_code"]):
        logger.warning_once(
            f"{source}: the header does not state how the volume lies in the patient; left may be right"
        )
    elif header["sform_code"] > 0 and header["qform_code"] > 0:
        _compare_forms(header, image.shape[:3], source)
    return in_millimetres(header, affine)


def in_millimetres(header: Any, affine: np.ndarray) -> np.ndarray:
    """Scale an affine in the unit that a NIfTI header states to mm; an unknown unit is taken for mm."""
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    with np.errstate(invalid="ignore"):  # a matrix that is not finite is refused later
        return np.diag([*(_MILLIMETRES[unit],) * 3, 1.0]) @ affine


def _compare_forms(header: Any, shape: tuple[int, ...], source: str) -> None:
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except (HeaderDataError, ValueError):
        logger.warning_once(f"{source}: the qform of the header is invalid; its sform is used")
        return
    ends = [(0, n - 1) for n in (*shape, 1, 1)[:3]]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))], axis=-1).reshape(-1, 4)
    with np.errstate(all="ignore"):  # a matrix that is not finite is refused later
        distance = np.abs(corners @ (sform - qform).T).max()
    if not distance <= _DISAGREEMENT:
        logger.warning_once(
            f"{source}: sform and qform of the header disagree by up to {distance:.2f} mm; the sform is used, as nibabel "
            "does, but other software may use the qform"
        )


def _to_volume(image: Any, source: str) -> MedicalImage:
    if not isinstance(image, SpatialImage):
        raise VividMedError(f"{source}: contains a {type(image).__name__}, not a volume; give a NIfTI image")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3):
        raise VividMedError(
            f"{source}: NIfTI of shape {image.shape} is not one 3D volume; save the volume to use in its own file"
        )
    dtype = image.get_data_dtype()
    if dtype.names:
        raise VividMedError(
            f"{source}: colour NIfTI files are not supported; save one channel, or use a PNG image"
        )
    check_image_size(source, shape, bytes_per_voxel=dtype.itemsize)
    array = np.asanyarray(image.dataobj).reshape(shape)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinite values are refused later
            array = array.astype(np.float32, copy=False)
    if array.ndim == 2:
        array = array[..., None]
    return MedicalImage(array.T[None], nifti_affine(image, source), source=source, oriented=True)


def _from_gzip(stream: BinaryIO, compressed_size: int, source: str) -> Any:
    """Expand no more than the header claims, then read on to the checksum."""
    gzip = _Expansion(stream)
    head = gzip.read(_HEADER_BYTES)
    size = _checked_header(head, compressed_size * _LARGEST_RATIO, source)
    content = head + gzip.read(size - len(head))
    if len(content) < size:
        raise EOFError(f"{size} bytes are stated, {len(content)} are there")
    trailer = 0
    while chunk := gzip.read(_CHUNK):
        trailer += len(chunk)
        if trailer > _LARGEST_TRAILER:
            raise ValueError("more data than the header states")
    image = _image_class(content).from_bytes(content)
    image.file_map["image"].filename = source  # by which messages name it
    return image


class _Expansion:
    """Expands gzip members one after another, no further than asked for; a member's checksum is compared at its end."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._pending = b""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; fewer only at the end of the file."""
        pieces = []
        while count > 0:
            if self._inflate.eof:
                rest = self._inflate.unused_data or self._stream.read(_CHUNK)
                if not rest.startswith(_GZIP):  # end of the file, or padding
                    break
                self._inflate, self._pending = zlib.decompressobj(zlib.MAX_WBITS | 16), rest
            elif not self._pending:
                self._pending = self._stream.read(_CHUNK)
                if not self._pending:
                    raise EOFError("the compressed data ends too early")
            piece = self._inflate.decompress(self._pending, count)
            self._pending = self._inflate.unconsumed_tail
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)


def _checked_header(head: bytes, largest: int, source: str) -> int:
    """Bytes of the whole file that a header claims, compared with the limit and with what the file can contain."""
    header = _image_class(head).header_class(head[: _header_size(head)])
    shape, offset = header.get_data_shape(), float(header["vox_offset"])
    check_image_size(source, shape, bytes_per_voxel=header.get_data_dtype().itemsize)
    if not (math.isfinite(offset) and 0 <= offset <= largest):
        raise HeaderDataError(f"the voxels are stated to begin at byte {offset:g}")
    size = int(offset) + math.prod(shape) * header.get_data_dtype().itemsize
    if size > largest and not header["magic"].item().startswith(b"ni"):
        raise EOFError(f"voxels of shape {shape} do not fit a file of this size")
    return size


def _image_class(head: bytes) -> Any:
    size = _header_size(head)
    if size not in _HEADER_SIZES:
        raise ImageFileError("it does not begin with a NIfTI header")
    return _HEADER_SIZES[size]


def _header_size(head: bytes) -> int:
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return next((size for size in sizes if size in _HEADER_SIZES), 0)
