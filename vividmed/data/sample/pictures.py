"""Turns 2D DICOM files into views: parts and frames of them, scaled down."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from vividmed.data.sample.sources import PictureSource
from vividmed.data.sample.views import View, generator, to_grey

_EDGE = 160
_LARGEST_PART = 0.95


def pictures(source: PictureSource, path: Path) -> Iterator[View]:
    """Views of one file: the first shows the whole region, the others smaller parts or other frames.

    Every second view of a colour file is grey, so that colour does not give the modality away.
    """
    dataset = pydicom.dcmread(path)
    frames = int(dataset.get("NumberOfFrames", 1))
    for number in range(source.views):
        name = f"{source.name}-{number:02d}"
        random = generator(name)
        frame = _frame(dataset, number * frames // source.views)
        scale = 1.0 if number == 0 else random.uniform(source.smallest_part, _LARGEST_PART)
        part = _part(frame, source.region, scale, random)
        eight_bit = part if part.dtype == np.uint8 else to_grey(part, source.window)
        yield View(
            name=name,
            patient=source.name,
            modality=source.modality,
            source=f"{source.archive}: {source.file}",
            licence=source.archive.licence,
            image=_shrink(_grey(eight_bit) if number % 2 else eight_bit),
            plane=source.plane,
        )


def _frame(dataset: pydicom.Dataset, index: int) -> np.ndarray:
    """(H, W) or (H, W, 3) pixels of one frame, bright where the display is bright."""
    pixels = pixel_array(dataset, index=index)
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    colour = pixels.ndim == 3
    if colour and pixels.dtype != np.uint8:
        pixels = to_grey(pixels, (0, float(np.iinfo(pixels.dtype).max)))
    if not colour and pixels.dtype != np.uint8:
        pixels = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)
    return _upright(pixels.max() - pixels if photometric == "MONOCHROME1" else pixels, dataset)


def _upright(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """The pixels as displayed by convention: of an axial image the patient's right on the left, and the front up."""
    x, _, _, _, y, _ = dataset.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
    return pixels[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


def _part(
    frame: np.ndarray, region: tuple[float, float, float, float], scale: float, random: np.random.Generator
) -> np.ndarray:
    """A part of the region, ``scale`` times its height and width."""
    height, width = frame.shape[:2]
    top, left, bottom, right = (round(v * n) for v, n in zip(region, (height, width) * 2, strict=True))
    tall, wide = round((bottom - top) * scale), round((right - left) * scale)
    top += int(random.integers(0, bottom - top - tall + 1))
    left += int(random.integers(0, right - left - wide + 1))
    return frame[top : top + tall, left : left + wide]


def _shrink(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    picture.thumbnail((_EDGE, _EDGE), Image.Resampling.BOX)
    return np.asarray(picture)
