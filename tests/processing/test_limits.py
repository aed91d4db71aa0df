"""Memory is bounded: what a file claims is compared with a stated limit before it is spent."""

import gzip
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.dicom_files import dicom, write_series
from vividmed.errors import VividMedError
from vividmed.processing.limits import MAX_BYTES_VARIABLE, MAX_PIXELS_VARIABLE
from vividmed.processing.reading import read_encoded, read_image

MIB = 1 << 20


def header_of(size: tuple[int, int, int]) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(size)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


def refused(read, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(VividMedError, match=match) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(1400, 1400, 1400), (1000, 1000, 1000)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_claim_that_the_file_cannot_hold_is_refused(tmp_path, size, suffix):
    path = tmp_path / f"v{suffix}"
    content = header_of(size) + bytes(5 * MIB if suffix == ".nii.gz" else 5000)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    refused(lambda: read_image(path), f"v{suffix}: (an image of size 1400|not a readable NIfTI file)")
    refused(lambda: read_encoded(path.read_bytes(), "row"), "row: (an image of size 1400|not a readable)")


def test_a_gzip_bomb_is_not_expanded(tmp_path):
    path = tmp_path / "v.nii.gz"
    compress = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(compress.compress(header_of((64, 64, 64))))
        for _ in range(60):
            file.write(compress.compress(bytes(MIB)))
        file.write(compress.flush())
    refused(lambda: read_image(path), "more data than the header states")


def huge_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(8193, 8193), (13300, 13300), (60000, 60000)])
def test_a_huge_png_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "image.png"
    path.write_bytes(huge_png(*size))
    refused(lambda: read_image(path), "image.png")
    refused(lambda: read_image(Image.open(path)) if size[0] < 13300 else read_image(path), "pixels")


@pytest.mark.parametrize(("rows", "frames"), [(60000, 1), (4000, 5000)])
def test_a_dicom_file_that_claims_too_much_is_refused(tmp_path, rows, frames):
    dataset = dicom(np.zeros((4, 4), np.uint16), NumberOfFrames=frames)
    dataset.Rows = dataset.Columns = rows
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    refused(lambda: read_image(tmp_path / "a.dcm"), "a.dcm: .*limit")


def test_the_limits_can_be_changed(tmp_path, monkeypatch):
    volume = np.zeros((3, 16, 16), np.uint16)
    write_series(tmp_path / "series", volume)
    nib.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    Image.fromarray(volume[0]).save(tmp_path / "image.png")
    sources = [tmp_path / "series", tmp_path / "v.nii.gz"]
    for source in (*sources, tmp_path / "image.png"):
        read_image(source)
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "1000")
    for source in sources:
        with pytest.raises(VividMedError, match=f"more than the limit.*set {MAX_BYTES_VARIABLE}"):
            read_image(source)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "255")
    with pytest.raises(
        VividMedError, match=f"larger than the limit of 255 pixels.*set {MAX_PIXELS_VARIABLE}"
    ):
        read_image(tmp_path / "image.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(VividMedError, match="'many' is not a limit"):
        read_image(tmp_path / "image.png")
