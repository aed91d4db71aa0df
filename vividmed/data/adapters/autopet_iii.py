"""autoPET III: tumour lesions in whole-body FDG and PSMA PET/CT."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS = {"tumor": 1}
# The CT is resampled to the PET: one grid.
_CHANNELS = {"0000": "CT", "0001": "PET"}


@register
class AutoPETIII(Adapter):
    name = "autopet-iii"
    title = "autoPET III"
    modalities = tuple(_CHANNELS.values())
    targets = tuple(_LABELS)
    licence = "Terms of the collections FDG-PET-CT-Lesions and PSMA-PET-CT-Lesions of TCIA (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "Both collections have terms of their own, which must be confirmed before anything is shared."
    homepage = "https://autopet-iii.grand-challenge.org/"
    citation = (
        "Gatidis et al. A whole-body FDG-PET/CT Dataset with manually annotated Tumor Lesions. Scientific Data 9, "
        "2022. Jeblick et al. A large annotated whole-body PSMA-PET-CT dataset. The Cancer Imaging Archive, 2023."
    )
    layout = {"imagesTr/*_0000.nii.gz": 1611, "imagesTr/*_0001.nii.gz": 1611, "labelsTr/*.nii.gz": 1611}
    gigabytes = 120.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "labelsTr/*.nii.gz"):
            key = label.name.removesuffix(".nii.gz")
            yield Case(
                id=key,
                patient="_".join(key.split("_")[:2]),  # <tracer>_<patient>_<study>
                images=tuple(
                    ImageFile(path=origin / f"imagesTr/{key}_{channel}.nii.gz", modality=modality)
                    for channel, modality in _CHANNELS.items()
                ),
                annotations=(LabelMap(label, _LABELS),),
            )
