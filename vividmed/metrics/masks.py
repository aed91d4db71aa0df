"""Masks as metrics take them: the grid's size, the box around the mask and the bits inside it."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from vividmed.data.masks import pack_mask, unpack_mask
from vividmed.errors import VividMedError

MASK = {
    "size": datasets.List(datasets.Value("int32"), length=3),
    "spacing": datasets.List(datasets.Value("float32"), length=3),
    "box": datasets.List(datasets.Value("int32"), length=6),
    "bits": datasets.Value("binary"),
}
"""Features of one mask; see :func:`encode_mask`."""


def encode_mask(mask: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> dict[str, Any]:
    """A mask in the form that metrics take.

    Args:
        mask: (D, H, W) bool.
        spacing: (z, y, x) of a voxel in mm.

    Raises:
        VividMedError: the mask is not three-dimensional or not bool.
    """
    packed = pack_mask("", mask)
    return {
        "size": list(mask.shape),
        "spacing": list(spacing),
        "box": list(packed["box"]),
        "bits": packed["bits"],
    }


def empty_mask(like: Mapping[str, Any]) -> dict[str, Any]:
    """A mask without any voxel, on the grid of another one."""
    return encode_mask(np.zeros(like["size"], dtype=bool), tuple(like["spacing"]))


def check_grids(found: np.ndarray, truth: np.ndarray) -> None:
    """Check that two masks can be compared voxel by voxel.

    Raises:
        VividMedError: their shapes differ.
    """
    if found.shape != truth.shape:
        raise VividMedError(
            f"a mask of {found.shape} voxels is compared with one of {truth.shape}; bring both to one grid"
        )


def decode_mask(mask: Mapping[str, Any]) -> np.ndarray:
    """(D, H, W) bool."""
    return unpack_mask({"target": "", "box": mask["box"], "bits": mask["bits"]}, mask["size"])
