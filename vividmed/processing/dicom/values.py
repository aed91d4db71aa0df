"""Pixels of a DICOM file as the values that they stand for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_voi_lut, pixel_array

from vividmed.errors import VividMedError
from vividmed.processing.dicom.attributes import FrameAttributes
from vividmed.processing.file_errors import readable_as
from vividmed.processing.limits import check_image_size, check_slice_size

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_DISPLAY_FIELDS = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
_RANGE_FIELDS = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept")
_LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Frames:
    """Decoded frames of one file.

    Attributes:
        values: (C, frames, H, W) in modality units, or display units where a window was applied.
        padding: (frames, H, W) bool, pixels outside the field of view; None without any.
        inverted: whether larger values are darker (MONOCHROME1).
    """

    values: np.ndarray
    padding: np.ndarray | None = None
    inverted: bool = False


def claimed_size(dataset: Dataset, source: str) -> tuple[int, int, int, float]:
    """Frames, rows, columns and bytes per pixel that the header claims, checked against the limits.

    Raises:
        VividMedError: a field is missing or malformed, or the image is too large.
    """
    fields = FrameAttributes(dataset, 0, source)
    rows, columns, frames, samples, bits = (
        fields.number(keyword) or 0
        for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
    )
    size = (max(int(frames), 1), int(rows), int(columns))
    bytes_per_pixel = max(samples, 1) * max(bits, 1) / 8
    check_image_size(source, size, bytes_per_voxel=bytes_per_pixel)
    check_slice_size(source, *size[1:])
    return *size, bytes_per_pixel


def decode(dataset: Dataset, source: str, *, voi_window: bool) -> Frames:
    """Decode the pixels of a file into modality units.

    Args:
        dataset: the file.
        source: its name, for errors.
        voi_window: apply the display window (VOI LUT) of each frame.

    Raises:
        VividMedError: no pixels, more of them than the limit, damaged pixels, or a malformed field.
    """
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        raise VividMedError(f"{source}: the DICOM file contains no image; give a file with pixel data")
    claimed_size(dataset, source)
    palette = dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    with readable_as(
        source, "DICOM image", "copy the file again, or install vividmed[dicom] for compressed files"
    ):
        _complete_header(dataset)
        array = pixel_array(dataset)
        if palette:
            array = _to_eight_bits(apply_color_lut(array, dataset))
    samples = 3 if palette else int(dataset.get("SamplesPerPixel") or 1)
    if samples == 3:
        return Frames(np.moveaxis(array.reshape(-1, *array.shape[-3:]), -1, 0))
    if samples != 1:
        raise VividMedError(
            f"{source}: {samples} samples per pixel are not supported; give grey or RGB images"
        )
    stored = array.reshape(-1, *array.shape[-2:])
    with readable_as(source, "DICOM image", "correct the header or export the file again"):
        fields = [FrameAttributes(dataset, index, source) for index in range(len(stored))]
        values = [to_modality_units(frame, field) for frame, field in zip(stored, fields, strict=True)]
        if voi_window:
            values = [_windowed(frame, dataset, field) for frame, field in zip(values, fields, strict=True)]
    return Frames(
        np.stack(values)[None],
        _padding(stored, dataset, fields[0]),
        inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
    )


def join_frames(parts: Sequence[Frames]) -> np.ndarray:
    """Join the frames of one volume, (C, D, H, W), so that larger values are brighter everywhere.

    MONOCHROME1 is inverted once, within the range of the whole volume, so that equal values stay equal in all slices.
    Padding then takes the lowest value of the rest.
    """
    values = np.concatenate([part.values for part in parts], axis=1)
    masks = [
        np.zeros(part.values.shape[1:], dtype=bool) if part.padding is None else part.padding
        for part in parts
    ]
    padding = np.concatenate(masks)
    inverted = parts[0].inverted
    if padding.all() or not (inverted or padding.any()):
        return values
    low = values.min(where=~padding, initial=values.max())
    high = values.max(where=~padding, initial=values.min())
    if inverted:
        if values.dtype.kind == "i":
            values, low, high = values.astype(np.int64), int(low), int(high)
        values = high - values + low
    values[:, padding] = low
    return values


def to_modality_units(stored: np.ndarray, fields: FrameAttributes) -> np.ndarray:
    """Apply the modality LUT, or slope and intercept, to a frame. Integer results stay integers."""
    if fields.get("ModalityLUTSequence"):
        return _look_up(stored, fields)
    slope, intercept = fields.number("RescaleSlope"), fields.number("RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if slope == 0:
        raise VividMedError(f"{fields.source}: RescaleSlope is 0, which erases the image; correct the header")
    if (slope, intercept) == (1.0, 0.0):
        return stored
    largest = max(abs(int(stored.min())), abs(int(stored.max()))) if stored.dtype.kind in "ui" else math.inf
    if (
        slope.is_integer()
        and intercept.is_integer()
        and largest * abs(slope) + abs(intercept) <= _LARGEST_INTEGER
    ):
        return stored.astype(np.int32) * int(slope) + int(intercept)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _look_up(stored: np.ndarray, fields: FrameAttributes) -> np.ndarray:
    item = FrameAttributes(fields.get("ModalityLUTSequence")[0], 0, fields.source)
    descriptor = item.numbers("LUTDescriptor", 3)
    data = item.get("LUTData")
    if descriptor is None or data is None:
        raise VividMedError(f"{fields.source}: the modality LUT is incomplete; correct the header")
    if isinstance(data, bytes):
        table = np.frombuffer(data, np.uint8 if len(data) == descriptor[0] else "<u2")
    else:
        table = np.atleast_1d(np.asarray(data))
    entries, first = int(descriptor[0]) or 2**16, int(descriptor[1])
    if first >= 2**15 and stored.dtype.kind == "i":
        first -= 2**16
    table = table[:entries]
    if not table.size:
        raise VividMedError(f"{fields.source}: the modality LUT is empty; correct the header")
    return table[(stored.astype(np.int64) - first).clip(0, len(table) - 1)].astype(np.int32)


def _windowed(frame: np.ndarray, dataset: Dataset, fields: FrameAttributes) -> np.ndarray:
    """Apply the first display window, or the VOI LUT, of a frame."""
    display = Dataset()
    for keyword in (
        *_DISPLAY_FIELDS,
        *_RANGE_FIELDS,
        "BitsStored",
        "PixelRepresentation",
        "PhotometricInterpretation",
    ):
        value = fields.get(keyword)
        if value is not None:
            setattr(display, keyword, value)
    display.file_meta = dataset.file_meta
    if "VOILUTSequence" not in display:
        for keyword in ("WindowCenter", "WindowWidth"):
            fields.numbers(keyword, None)
    return apply_voi_lut(frame, display)


def _padding(stored: np.ndarray, dataset: Dataset, fields: FrameAttributes) -> np.ndarray | None:
    """Which stored pixels are padding around the field of view."""
    first = fields.number("PixelPaddingValue")
    if first is None:
        return None
    last = fields.number("PixelPaddingRangeLimit")
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    bits = stored.dtype.itemsize * 8
    ends = [value for value in (first, last) if value is not None]
    # Some files state the bit pattern of a negative value.
    ends = [value - 2**bits if signed and value >= 2 ** (bits - 1) else value for value in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return padding if padding.any() else None


def _complete_header(dataset: Dataset) -> None:
    """Give a file without a transfer syntax the one that it was read with; decoders ask for it."""
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        dataset.file_meta = meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        if implicit:
            meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        else:
            meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
