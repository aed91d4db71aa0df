"""LiTS: liver and liver tumours in CT."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS: Mapping[str, int | tuple[int, ...]] = {"liver": (1, 2), "liver tumor": 2}
_WRONG_HEADERS = frozenset({"48", "49", "50", "51", "52"})
"""Scans whose label map fits the image voxel by voxel although its header places it elsewhere."""


@register
class LiTS(Adapter):
    name = "lits"
    title = "LiTS"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "CC BY-NC-ND 4.0 (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = (
        "The challenge gives the scans to registered participants; a licence without derivatives does not allow "
        "sharing data made from them."
    )
    homepage = "https://competitions.codalab.org/competitions/17094"
    citation = "Bilic et al. The Liver Tumor Segmentation Benchmark (LiTS). Medical Image Analysis 84, 2023."
    layout = {"Training Batch */volume-*.nii": 131, "Training Batch */segmentation-*.nii": 131}
    gigabytes = 50.0
    shares_patients = True

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "Training Batch */segmentation-*.nii"):
            number = label.stem.removeprefix("segmentation-")
            yield Case(
                id=number,
                patient=number,
                images=(ImageFile(path=label.with_name(f"volume-{number}.nii"), modality="CT"),),
                annotations=(LabelMap(label, _LABELS, on_image_grid=number in _WRONG_HEADERS),),
            )
