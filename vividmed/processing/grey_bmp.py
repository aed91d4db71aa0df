"""Grey BMP files, as prepared rows contain them, read as they lie in memory.

Pillow builds the palette of such a file entry by entry and copies the pixels three times: for a radiograph of a quarter of
a million pixels, that takes as long as everything else that is done to read its row.
"""

import struct

import numpy as np

# File header: signature, place of the pixels. Info header: size, width, height, planes, bits, compression, colours.
_HEADERS = struct.Struct("<2s8xI I ii HH I 12x I 4x")
_INFO_SIZE, _PALETTE_SIZE = 40, 1024
_GREY_RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
_GREY_RAMP[:, 3] = 0


def read_grey_bmp(content: bytes) -> np.ndarray | None:
    """Pixels (height, width), uint8, of an uncompressed BMP file with one byte and one grey per pixel.

    Args:
        content: the whole file.

    Returns:
        None for any other file, damaged ones included, which are then Pillow's to read or to refuse.
    """
    if len(content) < _HEADERS.size + _PALETTE_SIZE:
        return None
    signature, start, info_size, width, height, planes, bits, compression, colours = _HEADERS.unpack_from(
        content
    )
    expected = (b"BM", _INFO_SIZE, 1, 8, 0)
    if (signature, info_size, planes, bits, compression) != expected or colours not in (0, 256):
        return None
    stride = -(-width // 4) * 4  # rows end on four bytes
    if (
        min(width, height) < 1
        or start < _HEADERS.size + _PALETTE_SIZE
        or len(content) < start + stride * height
    ):
        return None
    palette = np.frombuffer(content, np.uint8, _PALETTE_SIZE, _HEADERS.size).reshape(256, 4)
    if not np.array_equal(palette, _GREY_RAMP):
        return None
    rows = np.frombuffer(content, np.uint8, stride * height, start).reshape(height, stride)
    return rows[::-1, :width].copy()  # the lowest row comes first
