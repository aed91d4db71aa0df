"""Volumes that a data set stores as a folder of numbered pictures, one per slice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.reading import read_image

_ENDINGS = (".jpeg", ".jpg", ".png")


def read_slices(folder: Path) -> MedicalImage:
    """Stack the pictures ``1.jpeg``, ``2.jpeg``, ... of a folder.

    The spacing of the slices and their direction in the patient are unknown: the affine has 1 mm and is not oriented.
    Colour pictures whose channels are equal become grey; if one slice is in colour, all are.

    Args:
        folder: contains these pictures only, numbered from 0 or 1 without gaps.

    Raises:
        VividMedError: There are no pictures, a number is missing, a picture cannot be read, or sizes differ.
    """
    pictures = _in_order(folder)
    slices = [_grey_if_possible(read_image(path).array[:, 0]) for path in pictures]
    sizes = {array.shape[1:] for array in slices}
    if len(sizes) > 1:
        raise VividMedError(
            f"{folder}: the slices have different sizes, {sorted(sizes)}; leave the series out"
        )
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
        raise VividMedError(
            f"{folder}: a slice is not named by its number ({error}); rename or remove it"
        ) from error
    numbers = [number for number, _ in numbered]
    if (
        not numbers
        or numbers[0] not in (0, 1)
        or numbers != list(range(numbers[0], numbers[0] + len(numbers)))
    ):
        raise VividMedError(
            f"{folder}: {len(numbers)} slices are not numbered from 0 or 1 without gaps; copy the series again"
        )
    return [path for _, path in numbered]


def _grey_if_possible(array: np.ndarray) -> np.ndarray:
    """Reduce (C, H, W) to (1, H, W) if all channels agree."""
    return array[:1] if (array == array[:1]).all() else array
