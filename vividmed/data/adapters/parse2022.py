"""PARSE2022: the pulmonary arterial tree in CT angiography."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register


@register
class Parse2022(Adapter):
    name = "parse2022"
    title = "PARSE2022"
    modalities = ("CT angiography",)
    targets = ("pulmonary artery",)
    licence = "PARSE2022 challenge data terms (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to registered participants; no known terms allow sharing them."
    homepage = "https://parse2022.grand-challenge.org/"
    citation = (
        "Luo et al. Efficient automatic segmentation for multi-level pulmonary arteries: The PARSE challenge. "
        "arXiv:2304.03708, 2023."
    )
    layout = {"train/*/image/*.nii.gz": 100, "train/*/label/*.nii.gz": 100}
    gigabytes = 16.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "train/*/label/*.nii.gz"):
            folder = label.parent.parent
            yield Case(
                id=folder.name,
                patient=folder.name,
                images=(ImageFile(path=folder / "image" / label.name, modality="CT angiography"),),
                annotations=(LabelMap(label, {"pulmonary artery": 1}),),
            )
