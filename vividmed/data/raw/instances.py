"""Connected components of masks: separate instances, and specks left by annotation tools."""

import numpy as np
from scipy import ndimage

from vividmed.data.raw.mask_patch import MaskPatch

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""Voxels that share a corner are connected."""

_SPECK_VOXELS = 10
_SPECK_SHARE = 1e-3


def split_instances(patch: MaskPatch) -> list[MaskPatch]:
    """Split a mask into one patch per connected component, in the order of their first voxels."""
    components, count = ndimage.label(patch.inside, _TOUCHING)
    if count == 1:
        return [patch]
    z, y, x = patch.corner
    return [
        MaskPatch(
            patch.target,
            (z + place[0].start, y + place[1].start, x + place[2].start),
            components[place] == number,
        )
        for number, place in enumerate(ndimage.find_objects(components), start=1)
    ]


def remove_specks(patch: MaskPatch) -> MaskPatch:
    """Drop components that are both tiny (under 10 voxels) and under a thousandth of the largest one.

    Meant for anatomy: a small lesion may be as small as a speck.
    """
    components, count = ndimage.label(patch.inside, _TOUCHING)
    if count <= 1:
        return patch
    sizes = np.bincount(components.ravel())[1:]
    speck = (sizes < _SPECK_VOXELS) & (sizes < _SPECK_SHARE * sizes.max())
    if not speck.any():
        return patch
    kept = np.concatenate([[False], ~speck])[components]
    return MaskPatch(patch.target, patch.corner, kept)
