"""Whether structures that are named by a side of the body lie on that side.

A left kidney lies to the left of the right one whatever the body looks like: situs inversus changes which organs lie
where, not what left means, and structures named by their form (heart chambers, lobes of the liver) are not looked at. So
where most pairs of an image lie the other way round, the numbers of the label map are exchanged or the image is placed
wrongly; a model trained on it would learn to call sides by the wrong name.
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
        image: On whose grid the masks lie; nothing is known about one that is not oriented.
        masks: Under canonical names.
        taxonomy: Which tells the structures that are named by their side.

    Returns:
        A warning where a few pairs lie the other way round.

    Raises:
        VividMedError: Most pairs do.
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
    """Target to the centre of its voxels in mm, growing from the patient's left to the right."""
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
