"""The errors that damaged image files cause, turned into one :class:`VividMedError` that names the file."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError
from PIL.Image import DecompressionBombError
from pydicom.errors import BytesLengthException, InvalidDicomError

from vividmed.errors import VividMedError

BROKEN_FILE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    ImageDataError,
    WrapStructError,
    DecompressionBombError,
    BytesLengthException,
    InvalidDicomError,
)
"""Every exception that Pillow, nibabel, pydicom and their decoders raise for a damaged file.

The list is wide because a parser that is given random bytes fails wherever its own arithmetic does.
"""

_LONGEST = 200


@contextmanager
def readable_as(
    source: object, file_type: str, remedy: str = "copy or export the file again"
) -> Iterator[None]:
    """Turn whatever a parser raises into one error that names the file.

    Args:
        source: file that is read.
        file_type: what the file should be, such as ``"NIfTI file"``.
        remedy: what to do about a damaged file.

    Raises:
        VividMedError: the block raised one of :data:`BROKEN_FILE`. A ``VividMedError`` passes through.
    """
    try:
        yield
    except VividMedError:
        raise
    except BROKEN_FILE as error:
        raise unreadable(source, file_type, error, remedy) from error


def unreadable(
    source: object, file_type: str, error: BaseException, remedy: str = "copy or export the file again"
) -> VividMedError:
    """Build the error for a damaged file, with the first line of the parser's own error."""
    reason = first_line(error).rstrip(":")
    if isinstance(error, DecompressionBombError):
        remedy = "make it smaller"
    return VividMedError(f"{source}: not a readable {file_type} ({reason}); {remedy}")


def first_line(error: BaseException) -> str:
    """First line of an error's text, shortened and printable; the name of its class if it has no text."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
