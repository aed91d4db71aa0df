"""Text that hides in binary files: metadata of images, volumes and tensors, and the words of vocabularies.

Every function yields pairs of a place within the file and a text found there.
"""

import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import nibabel as nib
import pydicom
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import ExifTags, Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from vividmed.errors import VividMedError

Text = tuple[str, str]

_MOST_HEADER_BYTES = 100_000_000
_GZIP = b"\x1f\x8b"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_WITHOUT_TEXT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB pHYs bKGD sBIT hIST cICP acTL fcTL fdAT".split()
)
_PRINTABLE_RUN = re.compile(rb"[\x20-\x7e\x80-\xf4]{4,}")


def embedded_text(data: bytes) -> Iterator[Text]:
    """Text in bytes of any kind that rows and folders contain.

    Args:
        data: a PNG, JPEG, TIFF or other image that Pillow reads, a NIfTI or DICOM file, or plain text. Other bytes,
            such as the bits of masks, contain no text.

    Raises:
        VividMedError: the bytes begin like a known format and are damaged.
    """
    try:
        if data[:2] == _GZIP:
            yield from _gzip_text(data)
        elif data[128:132] == b"DICM":
            yield from _dicom_text(data)
        elif data[344:347] in (b"n+1", b"ni1") or data[4:8] in (b"n+2\0", b"ni2\0"):
            yield from _nifti_text(io.BytesIO(data))
        elif data.startswith((_PNG, _JPEG, b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF")):
            yield from _image_text(data)
        elif _is_text(data):
            yield "text", data.decode()
    except (OSError, EOFError, ValueError, struct.error, zlib.error, SyntaxError, UnidentifiedImageError,
            Image.DecompressionBombError, HeaderDataError, ImageFileError, InvalidDicomError) as error:  # fmt: skip
        raise VividMedError(f"cannot be read ({' '.join(str(error).split())})") from error


def safetensors_text(file: BinaryIO) -> Iterator[Text]:
    """Names and metadata in the header of a safetensors file.

    Raises:
        VividMedError: the header is damaged.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > _MOST_HEADER_BYTES:
        raise VividMedError("is not a safetensors file")
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        items = metadata.items()
    except (ValueError, AttributeError, RecursionError) as error:
        raise VividMedError("is not a safetensors file") from error
    for key, value in items:
        yield f"metadata {key!r}", f"{key}: {value}"
        yield from ((f"metadata {key!r}", text) for text in json_strings_in(str(value)))
    yield from (("tensor name", name) for name in header)


def printable_runs(data: bytes) -> Iterator[str]:
    """Runs of four and more printable characters, as the words of a SentencePiece model."""
    for run in _PRINTABLE_RUN.findall(data):
        yield run.decode("utf-8", errors="ignore")


def json_strings_in(text: str) -> Iterator[str]:
    """Strings of a JSON document within a text, without its escapes; nothing if it is not one."""
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (f"{key}: {item}" for key, item in value.items() if not isinstance(item, dict | list))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _is_text(data: bytes) -> bool:
    if b"\0" in data[:512]:
        return False
    try:
        return all(character.isprintable() or character.isspace() for character in data.decode())
    except UnicodeDecodeError:
        return False


def _gzip_text(data: bytes) -> Iterator[Text]:
    """Name and comment in the header of a gzip file, and the text of the NIfTI file within."""
    flags, position = data[3], 10
    if flags & 4:
        position += 2 + int.from_bytes(data[position : position + 2], "little")
    for flag, place in ((8, "gzip file name"), (16, "gzip comment")):
        if flags & flag:
            end = data.index(b"\0", position)
            yield place, data[position:end].decode("latin-1")
            position = end + 1
    with gzip.open(io.BytesIO(data)) as stream:
        start = stream.read(544)
        if start[344:347] in (b"n+1", b"ni1"):
            (offset,) = struct.unpack("<f" if start[:4] == b"\x5c\x01\0\0" else ">f", start[108:112])
        elif start[4:8] in (b"n+2\0", b"ni2\0"):
            (offset,) = struct.unpack("<q" if start[:4] == b"\x1c\x02\0\0" else ">q", start[168:176])
        else:
            yield from embedded_text(start + stream.read(_MOST_HEADER_BYTES))
            return
        length = int(min(max(offset, len(start)), _MOST_HEADER_BYTES))
        yield from _nifti_text(io.BytesIO(start + stream.read(length - len(start))))


def _nifti_text(stream: io.BytesIO) -> Iterator[Text]:
    start = stream.getvalue()[:4]
    kind = nib.Nifti2Header if start in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Header
    header = kind.from_fileobj(stream, check=False)
    for field in header.structarr.dtype.names:
        value = header.structarr[field]
        if value.dtype.kind == "S" and value.item():
            yield f"NIfTI field {field!r}", value.item().decode("latin-1")
            yield f"NIfTI field {field!r}", value.item().decode("utf-8", errors="ignore")
    for extension in header.extensions:
        content = extension.get_content()
        raw = content if isinstance(content, bytes) else str(content).encode()
        yield from (("NIfTI extension", run) for run in printable_runs(raw))


def _dicom_text(data: bytes) -> Iterator[Text]:
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    for element in (*dataset.file_meta, *dataset.iterall()):
        if element.VR not in ("SQ", "OB", "OW", "UN"):
            yield f"DICOM {element.keyword or element.tag}", f"{element.keyword}: {element.value}"


def _image_text(data: bytes) -> Iterator[Text]:
    """Text chunks, EXIF, comments and what follows the end of a PNG, JPEG or other image."""
    if data.startswith(_PNG):
        yield from _png_text(data)
    with Image.open(io.BytesIO(data)) as image:
        # Text chunks of a PNG may stand after its pixels.
        image.load()
        values: dict[Any, Any] = {**image.info, **getattr(image, "text", {})}
        exif = image.getexif()
        segments = getattr(image, "applist", ())
    for key, value in values.items():
        yield from _values(f"image field {key!r}", str(key), value)
    for kind, segment in segments:
        yield from ((f"JPEG segment {kind}", run) for run in printable_runs(segment))
    for ifd in (None, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.IFD1):
        for tag, value in (exif if ifd is None else exif.get_ifd(ifd)).items():
            name = str(ExifTags.TAGS.get(tag, tag))
            if ifd == ExifTags.IFD.GPSInfo:
                yield "EXIF GPS", f"GPS {ExifTags.GPSTAGS.get(tag, tag)}: {value}"
            else:
                yield from _values(f"EXIF {name}", name, value)
    if data.startswith(_JPEG):
        _, marker, rest = data.rpartition(b"\xff\xd9")
        yield from (("data after the image", run) for run in printable_runs(rest if marker else b""))


def _values(place: str, name: str, value: Any) -> Iterator[Text]:
    if isinstance(value, bytes):
        if any(code in name for code in ("icc_profile", "transparency")):
            return
        for encoding in ("utf-16-le", "utf-16-be"):
            if value.count(b"\0") * 3 > len(value):
                yield place, value.decode(encoding, errors="ignore")
        yield from ((place, run) for run in printable_runs(value))
    elif isinstance(value, str):
        yield place, f"{name}: {value}"
        yield from ((place, text) for text in json_strings_in(value))


def _png_text(data: bytes) -> Iterator[Text]:
    position = len(_PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + 8 + length]
        if kind == b"tIME" and length == 7:
            yield "PNG chunk tIME", "-".join(map(str, struct.unpack(">HBB", content[:4])))
        elif kind not in _PNG_WITHOUT_TEXT and kind != b"iCCP":
            yield from ((f"PNG chunk {kind.decode('latin-1')}", run) for run in printable_runs(content))
        position += 12 + length
        if kind == b"IEND":
            break
    yield from (("data after the image", run) for run in printable_runs(data[position:]))
