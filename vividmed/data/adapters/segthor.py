"""SegTHOR: thoracic organs at risk in CT."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


@register
class SegTHOR(Adapter):
    name = "segthor"
    title = "SegTHOR"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "Research use (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to registered participants; no known terms allow sharing them."
    homepage = "https://competitions.codalab.org/competitions/21145"
    citation = (
        "Lambert et al. SegTHOR: Segmentation of thoracic organs at risk in CT images. International Conference on "
        "Image Processing Theory, Tools and Applications, 2020."
    )
    layout = {"train/Patient_*/Patient_*.nii.gz": 40, "train/Patient_*/GT.nii.gz": 40}
    gigabytes = 5.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for folder in files(origin, "train/Patient_*"):
            yield Case(
                id=folder.name,
                patient=folder.name.removeprefix("Patient_"),
                images=(ImageFile(path=folder / f"{folder.name}.nii.gz", modality="CT"),),
                annotations=(LabelMap(folder / "GT.nii.gz", _LABELS),),
            )
