"""Checks that structures named by a side of the body lie on that side.

A left kidney lies to the left of the right one in every body: situs inversus changes the places of organs, not the
meaning of left, and structures named by their shape (heart chambers, lobes of the liver) are not checked. If most pairs
of an image lie the other way round, the values of the label map are exchanged or the header places the image wrongly; a
model trained on it would learn the wrong names of sides.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.schema import plain_target
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage


def check_sides(image: MedicalImage, masks: Iterable[MaskPatch], taxonomy: Taxonomy) -> list[str]:
    """Compare the centres of left and right structures of one image along the patient's left-right axis.

    Args:
        image: image on whose grid the masks lie; one that is not oriented is not checked.
        masks: masks under canonical names.
        taxonomy: taxonomy that tells which structures are named by their side.

    Returns:
        A warning if a few pairs lie the other way round.

    Raises:
        VividMedError: most pairs lie the other way round.
    """
    if not image.oriented:
        return []
    centres = _centres(image, masks, taxonomy)
    pairs = [(name, taxonomy.mirror(name)) for name in sorted(centres) if "left" in name.split()]
    pairs = [(left, right) for left, right in pairs if right in centres]
    exchanged = [left for left, right in pairs if right is not None and centres[left] >= centres[right]]
    if not exchanged:
        return []
    finding = (
        f"{len(exchanged)} of {len(pairs)} left structures lie to the right of their counterpart "
        f"({', '.join(exchanged[:3])}{', ...' if len(exchanged) > 3 else ''})"
    )
    if 2 * len(exchanged) > len(pairs):
        raise VividMedError(
            f"{image.source}: {finding}; the label values are exchanged or the header places the image wrongly"
        )
    return [f"{finding}; look at them"]


def _centres(image: MedicalImage, masks: Iterable[MaskPatch], taxonomy: Taxonomy) -> dict[str, float]:
    """Centre of each target's voxels in mm along the axis from the patient's left to the right."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for mask in masks:
        target = taxonomy[plain_target(mask.target)]
        if target.laterality == "place" and target.category == "anatomy":
            # Voxels of each plane across an axis; a list of all indices would be larger than the image.
            planes = [np.count_nonzero(mask.inside, axis=axes) for axes in ((0, 1), (0, 2), (1, 2))]
            places = [np.arange(len(n)) + start for n, start in zip(planes, mask.corner[::-1], strict=True)]
            voxels = [count @ place for count, place in zip(planes, places, strict=True)]
            sums[target.name] += (*voxels, planes[0].sum())
    return {name: float(image.affine[0] @ total / total[3]) for name, total in sums.items()}
