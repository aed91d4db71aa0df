"""Rows of a data set as the processor takes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_encoded, read_image


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
    try:
        image = _decode(value, name) if isinstance(value, Mapping) else read_image(value)
    except VividMedError as error:
        raise VividMedError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    return replace(image, source=name)


def _decode(file: Mapping[str, Any], name: str) -> MedicalImage:
    """Read an image as ``datasets`` stores it: the content of a file, or its path."""
    content, path = file.get("bytes"), file.get("path")
    if content is not None:
        return read_encoded(content, name)
    if not path:
        raise VividMedError(f"{name}: neither bytes nor a path is given; store one of them")
    return read_image(path)
