"""BraTS 2023: five challenges on brain tumours with one layout and one label scheme."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_SEQUENCES = {"t1c": "T1CE MRI", "t1n": "T1 MRI", "t2f": "T2-FLAIR MRI", "t2w": "T2 MRI"}


class _BraTS2023(Adapter):
    """One of the challenges.

    Attributes:
        prefix: beginning of the names of its case folders, ``BraTS-<challenge>``.
        labels: target to label values. Value 1 is necrosis in gliomas of adults and the non-enhancing core elsewhere; 2
            is oedema (with non-enhancing parts); 3 is the enhancing tumour.
    """

    prefix: ClassVar[str]
    labels: ClassVar[Mapping[str, int | tuple[int, ...]]]
    modalities = tuple(_SEQUENCES.values())
    licence = "BraTS challenge data terms (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge data are given to registered participants and must not be passed on."
    homepage = "https://www.synapse.org/brats2023"

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, f"**/{self.prefix}-*/{self.prefix}-*-seg.nii.gz"):
            folder = label.parent
            # BraTS-GLI-NNNNN-TTT: patient and time point.
            yield Case(
                id=folder.name,
                patient=folder.name.removeprefix(f"{self.prefix}-").rpartition("-")[0],
                images=tuple(
                    ImageFile(path=folder / f"{folder.name}-{suffix}.nii.gz", modality=modality)
                    for suffix, modality in _SEQUENCES.items()
                ),
                annotations=(LabelMap(label, self.labels),),
            )


@register
class BraTS2023Glioma(_BraTS2023):
    name = "brats2023-gli"
    title = "BraTS 2023 adult glioma"
    prefix = "BraTS-GLI"
    labels = {"glioma": (1, 3), "necrotic tumor core": 1, "enhancing tumor": 3, "peritumoral edema": 2}
    targets = tuple(labels)
    layout = {"**/BraTS-GLI-*/*-seg.nii.gz": 1251, "**/BraTS-GLI-*/*-t1c.nii.gz": None}
    gigabytes = 13.0
    citation = (
        "Baid et al. The RSNA-ASNR-MICCAI BraTS 2021 Benchmark on Brain Tumor Segmentation and Radiogenomic "
        "Classification. arXiv:2107.02314, 2021."
    )


@register
class BraTS2023Meningioma(_BraTS2023):
    name = "brats2023-men"
    title = "BraTS 2023 meningioma"
    prefix = "BraTS-MEN"
    labels = {
        "meningioma": (1, 3),
        "non-enhancing tumor core": 1,
        "enhancing tumor": 3,
        "peritumoral edema": 2,
    }
    targets = tuple(labels)
    layout = {"**/BraTS-MEN-*/*-seg.nii.gz": 1000, "**/BraTS-MEN-*/*-t1c.nii.gz": None}
    gigabytes = 10.0
    citation = "LaBella et al. The ASNR-MICCAI BraTS Challenge 2023: Intracranial Meningioma. arXiv:2305.07642, 2023."


@register
class BraTS2023Metastases(_BraTS2023):
    name = "brats2023-met"
    title = "BraTS 2023 brain metastases"
    prefix = "BraTS-MET"
    labels = {
        "brain metastasis": (1, 3),
        "non-enhancing tumor core": 1,
        "enhancing tumor": 3,
        "peritumoral edema": 2,
    }
    targets = tuple(labels)
    layout = {"**/BraTS-MET-*/*-seg.nii.gz": None}
    gigabytes = 5.0
    citation = (
        "Moawad et al. The BraTS-METS Challenge 2023: Brain Metastasis Segmentation. arXiv:2306.00838, 2023."
    )


@register
class BraTS2023Pediatric(_BraTS2023):
    name = "brats2023-ped"
    title = "BraTS 2023 pediatric tumours"
    prefix = "BraTS-PED"
    labels = {
        "pediatric glioma": (1, 3),
        "non-enhancing tumor core": 1,
        "enhancing tumor": 3,
        "peritumoral edema": 2,
    }
    targets = tuple(labels)
    layout = {"**/BraTS-PED-*/*-seg.nii.gz": 99}
    gigabytes = 1.0
    citation = "Kazerooni et al. The BraTS Challenge 2023: Focus on Pediatrics. arXiv:2305.17033, 2023."


@register
class BraTS2023Africa(_BraTS2023):
    name = "brats2023-ssa"
    title = "BraTS 2023 Sub-Saharan Africa"
    prefix = "BraTS-SSA"
    labels = BraTS2023Glioma.labels
    targets = tuple(labels)
    layout = {"**/BraTS-SSA-*/*-seg.nii.gz": 60}
    gigabytes = 0.6
    citation = "Adewole et al. The Brain Tumor Segmentation Challenge 2023: Glioma in Sub-Saharan Africa. arXiv:2305.19369, 2023."
