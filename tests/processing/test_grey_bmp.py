"""Prepared grey pictures are read as Pillow reads them; whatever differs from them is left to Pillow."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from vividmed.errors import VividMedError
from vividmed.processing.grey_bmp import read_grey_bmp
from vividmed.processing.reading import read_encoded


def picture(height: int = 5, width: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8))


def encoded(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "BMP", **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (4, 5), (3, 6), (2, 7), (544, 512)])
@pytest.mark.parametrize("dpi", [(0, 0), (100, 50)])
def test_pixels_are_those_of_pillow(size, dpi):
    content = encoded(picture(*size), dpi=dpi)
    expected = np.array(Image.open(io.BytesIO(content)))
    assert np.array_equal(read_grey_bmp(content), expected)
    assert np.array_equal(read_encoded(content, "cell").array[0, 0], expected)


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA"])
def test_other_kinds_of_pixels_are_left_to_pillow(mode):
    content = encoded(picture().convert(mode))
    assert read_grey_bmp(content) is None
    assert read_encoded(content, "cell").size == (1, 5, 7)


def changed(content: bytes, place: int, form: str, value: int) -> bytes:
    result = bytearray(content)
    struct.pack_into(form, result, place, value)
    return bytes(result)


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [
        (10, "<I", 54),  # pixels inside the palette
        (14, "<I", 108),  # a later header
        (22, "<i", -5),  # the first row on top
        (30, "<I", 1),  # run-length coding
        (46, "<I", 16),  # fewer colours
        (54 + 4 * 9, "B", 200),  # another palette than the greys in order
    ],
)
def test_other_headers_are_left_to_pillow(place, form, value):
    assert read_grey_bmp(changed(encoded(picture()), place, form, value)) is None


@pytest.mark.parametrize("length", [0, 2, 53, 54, 1077, 1078, -9])
def test_a_file_that_ends_early_is_refused_with_its_name(length):
    content = encoded(picture())[:length]
    assert read_grey_bmp(content) is None
    with pytest.raises(VividMedError, match=r"images\[0\]"):
        read_encoded(content, "images[0]")


def test_too_many_pixels_are_refused(monkeypatch):
    monkeypatch.setenv("VIVIDMED_MAX_IMAGE_PIXELS", "30")
    with pytest.raises(VividMedError, match="5 x 7 pixels is larger than the limit"):
        read_encoded(encoded(picture()), "cell")
