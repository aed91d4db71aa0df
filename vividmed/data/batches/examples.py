"""Rows of a data set as the processor takes them."""

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.wrapstruct import WrapStructError
from PIL import Image

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_image

_BROKEN = (OSError, EOFError, ValueError, SyntaxError, zlib.error, ImageFileError, WrapStructError)


def to_example(row: Mapping[str, Any]) -> dict[str, Any]:
    """Images and conversation of a vision-language row.

    Args:
        row: A row with the columns ``images``, ``volumes`` and ``messages``. Images may be decoded (PIL, nibabel) or
            encoded as ``datasets`` stores them (``{"bytes": ..., "path": ...}``).

    Returns:
        ``images``: list of :class:`MedicalImage`, pictures before volumes, in order of mention;
        ``messages``: list of ``{"role", "content"}`` with plain text. The images belong to the first user turn.

    Raises:
        VividMedError: If an image cannot be read, naming the column and its place in it.
    """
    return {
        "images": read_images(row),
        "messages": [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]],
    }


def read_images(row: Mapping[str, Any]) -> list[MedicalImage]:
    """Images of any kind of row, pictures before volumes.

    Raises:
        VividMedError: If an image cannot be read, naming the column and its place in it.
    """
    return [
        _read(value, f"{column}[{number}]")
        for column in ("images", "volumes")
        for number, value in enumerate(row[column])
    ]


def _read(value: Any, name: str) -> MedicalImage:
    if isinstance(value, Mapping):
        value = _decode(value, name)
    try:
        image = read_image(value)
    except VividMedError as error:
        raise VividMedError(f"{name}: {error}") from error
    return replace(image, source=name)


def _decode(file: Mapping[str, Any], name: str) -> Any:
    """A PIL or nibabel image from the content of a file, or the path of the file."""
    content, path = file.get("bytes"), file.get("path")
    if content is None:
        if not path:
            raise VividMedError(f"{name}: neither bytes nor a path is given; store one of them")
        return Path(path)
    try:
        if name.startswith("images"):
            return Image.open(BytesIO(content))
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return nib.Nifti1Image.from_bytes(raw)
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise VividMedError(f"{name}: not a readable image ({reason}); store it again") from error
