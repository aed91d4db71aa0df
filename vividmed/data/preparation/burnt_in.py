"""Finds text that is burnt into the pixels of a 2D image and may name the patient.

The DICOM field for this is missing from most files, and other image formats have none, so the pixels are searched too:
for a row of shapes of the same height, close together on a line, in the brightest or darkest values of the image. This
is a warning, not a protection: handwriting, grey letters and text on a bright background are not found.
"""

from pathlib import Path

import numpy as np
import pydicom
from scipy import ndimage

from vividmed.processing.dicom import is_dicom

_LETTERS = 5
"""Smallest number of shapes in a row that count as text; markers of a side or a view are shorter."""
_SMALLEST = 6
_MOST_SHAPES = 3000
_LONGEST_EDGE = 1500
_MOST_OF_PICTURE = 0.2
_LEVELS = (0.97, 0.8, 0.65)
"""Thresholds between ink and background, as fractions of the range from either end."""


def says_burnt_in(path: Path) -> bool:
    """Whether a DICOM file says that text is burnt into its pixels."""
    if not path.is_file() or not is_dicom(path):
        return False
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["BurnedInAnnotation"])
    return str(header.get("BurnedInAnnotation", "")).upper() == "YES"


def shows_text(array: np.ndarray) -> bool:
    """Whether an image seems to show a line of text.

    Args:
        array: (C, 1, H, W) of any intensities; volumes are (C, D, H, W) with D > 1 and never do.
    """
    if array.shape[1] != 1:
        return False
    step = max(1, max(array.shape[2:]) // _LONGEST_EDGE)  # letters on a large image are large
    picture = array[:, 0, ::step, ::step]
    for grey in picture if len(picture) == 1 else (picture.max(axis=0), picture.min(axis=0)):
        low, high = float(grey.min()), float(grey.max())
        for level in (part * (high - low) for part in _LEVELS):
            for ink in (grey >= low + level, grey <= high - level):
                if 0 < ink.mean() <= _MOST_OF_PICTURE and _has_line(ink):
                    return True
    return False


def _has_line(ink: np.ndarray) -> bool:
    labels, _ = ndimage.label(ink, np.ones((3, 3)))
    places = [place for place in ndimage.find_objects(labels) if place]
    corners = np.array([(y.start, x.start, y.stop, x.stop) for y, x in places])
    height, width = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    letters = (height >= _SMALLEST) & (height <= max(ink.shape[0] // 10, _SMALLEST)) & (width <= 1.5 * height)
    corners = corners[letters]
    if not _LETTERS <= len(corners) <= _MOST_SHAPES:
        return False
    top, left, bottom, right = corners.T
    height = bottom - top
    low, tall = np.minimum.outer(height, height), np.maximum.outer(height, height)
    gap = left[None, :] - right[:, None]
    follows = (
        (np.abs(np.subtract.outer(bottom, bottom)) <= 0.25 * low)
        & (low >= 0.65 * tall)
        & (gap > -0.2 * low)
        & (gap <= 1.2 * low)
        & (left[None, :] > left[:, None])
    )
    # Length of the longest row that ends at each shape; a row grows from left to right.
    length = np.ones(len(corners), int)
    for index in np.argsort(left, kind="stable"):
        before = follows[:, index]
        if before.any():
            length[index] = 1 + length[before].max()
    return int(length.max()) >= _LETTERS
