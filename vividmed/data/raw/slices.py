"""Volumes that a data set gives as a folder of numbered pictures, one a slice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.reading import read_image

_ENDINGS = (".jpeg", ".jpg", ".png")


def read_slices(folder: Path) -> MedicalImage:
    """Stack the pictures ``1.jpeg``, ``2.jpeg``, ... of a folder.

    The distance of slices and their direction in the patient are not known: the affine has 1 mm and is not oriented.
    Colour that shows no colour becomes grey, and all slices are colour where one is.

    Args:
        folder: Holds nothing else; pictures are numbered from 0 or 1 without a gap.

    Raises:
        VividMedError: There are no pictures, a number is missing, one cannot be read, or sizes differ.
    """
    pictures = _in_order(folder)
    slices = [_grey_if_possible(read_image(path).array[:, 0]) for path in pictures]
    sizes = {array.shape[1:] for array in slices}
    if len(sizes) > 1:
        raise VividMedError(f"{folder}: its slices have the sizes {sorted(sizes)}; leave the series out")
    channels = max(array.shape[0] for array in slices)
    stack = np.stack([np.broadcast_to(array, (channels, *array.shape[1:])) for array in slices], axis=1)
    return MedicalImage(stack, picture_affine(), source=str(folder))


def _in_order(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; check that the data set is complete")
    found = [path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.name[0] != "."]
    try:
        numbered = sorted((int(path.stem), path) for path in found)
    except ValueError as error:
        raise VividMedError(f"{folder}: a slice is not named by its number ({error})") from error
    numbers = [number for number, _ in numbered]
    if (
        not numbers
        or numbers[0] not in (0, 1)
        or numbers != list(range(numbers[0], numbers[0] + len(numbers)))
    ):
        raise VividMedError(
            f"{folder}: {len(numbers)} slices are not numbered without a gap from 0 or 1; copy the series again"
        )
    return [path for _, path in numbered]


def _grey_if_possible(array: np.ndarray) -> np.ndarray:
    """(1, H, W) where all channels of (C, H, W) agree, else the array."""
    return array[:1] if (array == array[:1]).all() else array
