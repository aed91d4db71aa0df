"""ATLAS R2.0: stroke lesions in T1 MRI, all scans in MNI space."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS = {"stroke lesion": 1}
_SPACE = "_space-MNI152NLin2009aSym"
_IMAGE = f"{_SPACE}_T1w.nii.gz"
_MASK = f"{_SPACE}_label-L_desc-T1lesion_mask.nii.gz"
_ANATOMY = "Training/R*/sub-*/ses-*/anat"


@register
class ATLAS(Adapter):
    name = "atlas"
    title = "ATLAS R2.0"
    modalities = ("T1 MRI",)
    targets = tuple(_LABELS)
    licence = "ATLAS R2.0 data use terms (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = (
        "The archive is encrypted; its password is given to those who accept the data use terms by a form."
    )
    homepage = "https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html"
    citation = (
        "Liew et al. A large, curated, open-source stroke neuroimaging dataset to improve lesion segmentation "
        "algorithms. Scientific Data 9, 2022."
    )
    layout = {f"{_ANATOMY}/*{_IMAGE}": 655, f"{_ANATOMY}/*{_MASK}": 655}
    gigabytes = 4.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for mask in files(origin, f"{_ANATOMY}/*{_MASK}"):
            key = mask.name.removesuffix(_MASK)
            yield Case(
                id=key,
                patient=key.partition("_")[0],
                images=(ImageFile(path=mask.with_name(f"{key}{_IMAGE}"), modality="T1 MRI"),),
                annotations=(LabelMap(mask, _LABELS),),
            )
