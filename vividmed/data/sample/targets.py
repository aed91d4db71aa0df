"""Names of the structures that the sample sources label, their label values, and how they read in a sentence."""

from collections.abc import Iterable, Mapping

Labels = Mapping[str, tuple[int | str, ...]]
"""The values of a label map, or names of regions of a structure set, that form each target."""

CT_ORGANS: Labels = {
    "spleen": (1,),
    "right kidney": (2,),
    "left kidney": (3,),
    "gallbladder": (4,),
    "liver": (5,),
    "stomach": (6,),
    "pancreas": (7,),
    "left lung": (10, 11),
    "right lung": (12, 13, 14),
    "trachea": (16,),
    "colon": (20,),
    "bladder": (21,),
    "heart": (51,),
    "aorta": (52,),
    "left femur": (75,),
    "right femur": (76,),
    "left hip bone": (77,),
    "right hip bone": (78,),
    "bone": (*range(25, 51), *range(69, 75), *range(91, 117)),
}
"""Label values of TotalSegmentator's CT task of version 2, parts of an organ merged.

Those of bone are the other bones: :data:`PARTS` adds the ones that are targets of their own.
"""

UPPER_ABDOMEN_CT_ORGANS: Labels = {
    target: values for target, values in CT_ORGANS.items() if target not in ("left lung", "right lung")
}
"""Targets of a slab that ends at the lung bases, where a missing lung label does not prove that no lung is visible."""

MR_ORGANS: Labels = {
    "spleen": (1,),
    "right kidney": (2,),
    "left kidney": (3,),
    "gallbladder": (4,),
    "liver": (5,),
    "stomach": (6,),
    "pancreas": (7,),
    "colon": (15,),
    "bladder": (16,),
    "heart": (22,),
    "aorta": (23,),
}
"""Label values of TotalSegmentator's MR task."""

CHEST_PROJECTION = ("heart", "left lung", "right lung")
"""Targets that a chest radiograph shows well enough to be asked for."""

BODY = "body outline"
"""Everything inside the patient's skin."""

PARTS = {"bone": ("left femur", "right femur", "left hip bone", "right hip bone")}
"""Targets that are labelled on their own and belong to another one, too."""

UNREPORTED = frozenset({BODY, "bone"})
"""Targets that every CT shows, so that a report does not name them."""

LESIONS = frozenset({"lung lesion", "brain tumor", "breast lesion"})

SIDED = frozenset({"liver", "spleen", "gallbladder"})
"""Organs that lie on one side of the body although their names do not say so."""


PAIRS = {"lungs": ("left lung", "right lung"), "kidneys": ("left kidney", "right kidney")}
"""The two targets of each pair of organs, by its plural."""


def with_article(target: str) -> str:
    """``the liver``, but ``a brain tumor``: an organ is known to exist, a lesion is not."""
    return f"a {target}" if target in LESIONS else f"the {target}"


def enumerate_names(names: Iterable[str]) -> str:
    """Join names as in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
