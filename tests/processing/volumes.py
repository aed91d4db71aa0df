"""Synthetic volumes that know their place in the patient."""

import itertools

import numpy as np

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""The 48 ways to store a volume: which world axis each index axis follows, and in which direction."""


def store(
    world: np.ndarray, spacing: tuple[float, float, float], order, signs
) -> tuple[np.ndarray, np.ndarray]:
    """Store a volume, given along (right, anterior, superior), in one of the 48 orientations.

    Returns:
        The data along index axes (x, y, z), and the affine that maps indices to RAS+ mm.
    """
    data = np.transpose(world, order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for index, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, index] = sign * spacing[axis]
        if sign < 0:
            data = np.flip(data, index)
            affine[axis, 3] = (world.shape[axis] - 1) * spacing[axis]
    return data.copy(), affine


def ball(size: tuple[int, ...], centre, radius) -> np.ndarray:
    """An ellipsoid (bool) with half axes ``radius``, in voxels."""
    grid = np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)) <= 1
