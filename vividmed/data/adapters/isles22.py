"""ISLES22: ischaemic stroke lesions in diffusion-weighted MRI.

The FLAIR images lie on another grid and are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS = {"stroke lesion": 1}
_SEQUENCES = {"dwi": "DW MRI", "adc": "ADC MRI"}
_SUBJECT = "sub-strokecase*/ses-*"


@register
class ISLES22(Adapter):
    name = "isles22"
    title = "ISLES22"
    modalities = tuple(_SEQUENCES.values())
    targets = tuple(_LABELS)
    licence = "CC BY 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://isles22.grand-challenge.org/"
    citation = (
        "Hernandez Petzsche et al. ISLES 2022: A multi-center magnetic resonance imaging stroke lesion segmentation "
        "dataset. Scientific Data 9, 2022."
    )
    layout = {
        f"{_SUBJECT}/dwi/*_dwi.nii.gz": 250,
        f"{_SUBJECT}/dwi/*_adc.nii.gz": 250,
        f"derivatives/{_SUBJECT}/*_msk.nii.gz": 250,
    }
    gigabytes = 1.6

    def cases(self, origin: Path) -> Iterator[Case]:
        for mask in files(origin, f"derivatives/{_SUBJECT}/*_msk.nii.gz"):
            key = mask.name.removesuffix("_msk.nii.gz")
            subject, session = mask.parts[-3:-1]
            yield Case(
                id=key,
                patient=subject,
                images=tuple(
                    ImageFile(
                        path=origin / subject / session / f"dwi/{key}_{suffix}.nii.gz", modality=modality
                    )
                    for suffix, modality in _SEQUENCES.items()
                ),
                annotations=(LabelMap(mask, _LABELS),),
            )
