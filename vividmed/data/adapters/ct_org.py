"""CT-ORG: six organs in CT, with metastases in many of them.

The authors hold out the first 21 scans. Their split is not kept: scans 0 to 130 are those of LiTS, and other data sets
train on any of them.
"""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_DRAWN = {"liver": 1, "bladder": 2, "kidney": 4, "brain": 6}
# Not known to be drawn in every scan that shows it.
_NOT_EVERYWHERE = frozenset({"brain"})
# Drawn by hand in the first scans only; elsewhere thresholds found them.
_DRAWN_IN_FIRST = {"lung": 3, "bone": 5}
_FIRST = frozenset(map(str, range(21)))
_OF_LITS = frozenset(map(str, range(131)))


@register
class CTORG(Adapter):
    name = "ct-org"
    title = "CT-ORG"
    modalities = ("CT",)
    targets = (*_DRAWN, *_DRAWN_IN_FIRST)
    licence = "CC BY 3.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "Most scans come from LiTS, whose terms must be cleared before what is made of them is shared."
    homepage = "https://www.cancerimagingarchive.net/collection/ct-org/"
    citation = (
        "Rister et al. CT-ORG, a new dataset for multiple organ segmentation in computed tomography. Scientific "
        "Data 7, 2020."
    )
    layout = {"volume-*.nii.gz": 140, "labels-*.nii.gz": 140}
    gigabytes = 18.0
    shares_patients = True

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "labels-*.nii.gz"):
            number = label.name.removeprefix("labels-").removesuffix(".nii.gz")
            labels, ignored = _DRAWN | _DRAWN_IN_FIRST, frozenset[int]()
            if number not in _FIRST:
                labels, ignored = _DRAWN, frozenset(_DRAWN_IN_FIRST.values())
            yield Case(
                id=number,
                patient=f"lits:{number}" if number in _OF_LITS else number,
                images=(ImageFile(path=label.with_name(f"volume-{number}.nii.gz"), modality="CT"),),
                annotations=(LabelMap(label, labels, ignored=ignored, partial=_NOT_EVERYWHERE),),
            )
