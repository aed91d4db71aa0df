"""Images that a request carries, read without trusting their names, types or claimed sizes."""

import base64
import binascii
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from vividmed.errors import VividMedError
from vividmed.processing.dicom import is_dicom
from vividmed.processing.limits import max_image_bytes
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.nifti import is_nifti
from vividmed.processing.reading import read_encoded, read_image
from vividmed.serving.errors import ApiError

MAX_ENTRIES = 10_000
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""The second begins an empty archive."""
_CHUNK = 2**20
_HEADERS_SHARE = 1.25
"""A series may take this multiple of the limit of its voxels, since DICOM headers come on top of them."""
_KINDS = "give a PNG, JPEG, NIfTI or DICOM file, several DICOM files, or a zip file with one of these"


def decode_data_url(url: str, *, param: str) -> bytes:
    """Decode ``data:TYPE;base64,...``; the type is ignored, since the content says what it is.

    Raises:
        ApiError: it is another address, which is never fetched, or damaged.
    """
    if not url.startswith("data:"):
        shown = url[:60] + ("..." if len(url) > 60 else "")
        raise ApiError(
            400,
            f"{shown!r} is not a data URL, and no other address is fetched; send data:TYPE;base64,CONTENT",
            code="invalid_image_url",
            param=param,
        )
    header, comma, data = url.partition(",")
    if not comma:
        raise ApiError(
            400, "the data URL has no comma before its content", code="invalid_image_url", param=param
        )
    if not header.endswith(";base64"):
        return unquote_to_bytes(data)
    return decode_base64(data, param=param)


def decode_base64(data: str, *, param: str) -> bytes:
    """Decode base64.

    Raises:
        ApiError: it is damaged.
    """
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"not valid base64 ({error})", code="invalid_base64", param=param) from error


def read_scan(files: Sequence[bytes], folder: Path, *, name: str) -> MedicalImage:
    """Read the image that one or several files contain.

    Args:
        files: content of one image file, of a zip file, or of the DICOM files of one series.
        folder: empty folder, to which only DICOM files are written; exports need them as long as the image.
        name: what errors call the image.

    Raises:
        ApiError: there is not exactly one readable image, or it is too large.
    """
    try:
        return _read(files, folder, name)
    except VividMedError as error:
        message = str(error).replace(f"{folder}/", "").replace(str(folder), name)
        raise ApiError(400, message, code="invalid_image", param=name) from None
    except MemoryError as error:
        raise ApiError(413, f"{name}: needs more memory than there is", param=name) from error


def _read(files: Sequence[bytes], folder: Path, name: str) -> MedicalImage:
    if not files or not all(files):
        raise VividMedError(f"{name}: a file is missing or empty; {_KINDS}")
    if len(files) == 1 and files[0].startswith(_ZIP):
        return _read_zip(files[0], folder, name)
    if len(files) == 1 and is_nifti(files[0]):
        return read_encoded(files[0], name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_write(folder, number, content) for number, content in enumerate(files, start=1)]
    dicom = [path for path in paths if is_dicom(path)]
    for path in paths:
        if path not in dicom:
            path.unlink()
    if len(files) == 1:
        return read_image(dicom[0]) if dicom else read_encoded(files[0], name)
    if len(dicom) < len(files):
        raise VividMedError(
            f"{name}: {len(files) - len(dicom)} of {len(files)} files are not DICOM; {_KINDS}"
        )
    return read_image(folder)


def _write(folder: Path, number: int, content: bytes) -> Path:
    path = folder / f"{number:05}.dcm"
    path.write_bytes(content)
    return path


def _read_zip(content: bytes, folder: Path, name: str) -> MedicalImage:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_archive(archive, folder, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise VividMedError(
            f"{name}: the zip file is damaged, encrypted or of a kind that is not read ({error})"
        ) from error


def _read_archive(archive: zipfile.ZipFile, folder: Path, name: str) -> MedicalImage:
    entries = [
        entry
        for entry in archive.infolist()
        if not entry.is_dir()
        and entry.file_size
        and not Path(entry.filename).name.startswith(".")
        and "__MACOSX" not in entry.filename
    ]
    limit = int(max_image_bytes() * _HEADERS_SHARE)
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > limit:
        raise ApiError(
            413,
            f"{name}: the zip file claims {len(entries)} files of {sum(e.file_size for e in entries) / 2**20:,.0f} MiB "
            f"together; at most {MAX_ENTRIES} files of {limit / 2**20:,.0f} MiB are read",
            param=name,
        )
    folder.mkdir(parents=True, exist_ok=True)
    dicom, others = 0, []
    for number, entry in enumerate(entries, start=1):
        path = folder / f"{number:05}.dcm"
        with archive.open(entry) as stream, path.open("wb") as target:
            while chunk := stream.read(_CHUNK):
                target.write(chunk)
        if is_dicom(path) and Path(entry.filename).name.upper() != "DICOMDIR":
            dicom += 1
        else:
            others.append(path)
    if not dicom and len(others) == 1:
        inside = others[0].read_bytes()
        others[0].unlink()
        return read_encoded(inside, name)
    for path in others:
        path.unlink()
    if not dicom:
        raise VividMedError(
            f"{name}: the zip file contains no DICOM series and not exactly one image; {_KINDS}"
        )
    return read_image(folder)
