"""Images with findings at known places."""

import itertools
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from vividmed.processing.grounded_text import GroundedText, Phrase
from vividmed.processing.medical_image import MedicalImage, picture_affine

ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]
"""The 48 ways in which the index axes (x, y, z) can run."""


def oriented_volume(
    code: str, world_size: Sequence[int] = (20, 24, 14), world_spacing: Sequence[float] = (1.0, 1.0, 2.5)
) -> MedicalImage:
    """A volume of noise, stored with its index axes (x, y, z) running as ``code`` says; sizes in (R, A, S) order."""
    world = [next(axis for axis, ends in enumerate(("RL", "AP", "SI")) if letter in ends) for letter in code]
    affine = np.zeros((4, 4))
    for index, letter in enumerate(code):
        axis = world[index]
        sign = 1 if letter in "RAS" else -1
        affine[axis, index] = sign * world_spacing[axis]
        affine[axis, 3] = -sign * world_spacing[axis] * (world_size[axis] - 1) / 2
    affine[3, 3] = 1
    size = [world_size[axis] for axis in reversed(world)]
    array = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    return MedicalImage(array, affine, oriented=True, source="secret-name.nii.gz")


def voxel_at(image: MedicalImage, world_mm: Sequence[float]) -> tuple[int, int, int]:
    """The voxel (z, y, x) that holds a point in RAS+ mm."""
    x, y, z = nib.affines.apply_affine(np.linalg.inv(image.affine), world_mm).round().astype(int)
    return int(z), int(y), int(x)


def picture(size: tuple[int, int] = (120, 100), channels: int = 1) -> MedicalImage:
    """A dark 2D image, 8 bit."""
    array = np.full((channels, 1, *size), 40, dtype=np.uint8)
    return MedicalImage(array, picture_affine(), source="secret-name.png")


def block_mask(size: Sequence[int], box: Sequence[int]) -> np.ndarray:
    """A mask that fills a box."""
    mask = np.zeros(tuple(size), dtype=bool)
    mask[tuple(slice(low, high) for low, high in zip(box[:3], box[3:], strict=True))] = True
    return mask


def grounded(text: str, **found: dict) -> GroundedText:
    """A text whose phrases are the given words, ``_`` for spaces, with the fields of their ``Phrase``."""
    phrases = []
    for name, fields in found.items():
        words = name.replace("_", " ")
        start = text.index(words)
        phrases.append(Phrase(words, start, start + len(words), **fields))
    return GroundedText(text, phrases)
