"""MRSpineSeg: vertebrae and intervertebral discs in T2-weighted MRI."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_UPWARDS = ("S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9")
_LABELS = (
    {"sacrum": 1}
    | {f"{level} vertebra": value for value, level in enumerate(_UPWARDS[1:], start=2)}
    | {
        f"{upper}-{lower} intervertebral disc": value
        for value, (lower, upper) in enumerate(pairwise(_UPWARDS), start=11)
    }
)


@register
class MRSpineSeg(Adapter):
    name = "mrspineseg"
    title = "MRSpineSeg"
    modalities = ("T2 MRI",)
    targets = tuple(_LABELS)
    licence = "MRSpineSeg challenge data terms (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to registered participants; no known terms allow sharing them."
    homepage = "https://www.spinesegmentation-challenge.com/"
    citation = (
        "Pang et al. SpineParseNet: Spine Parsing for Volumetric MR Image by a Two-Stage Segmentation Framework With "
        "Semantic Image Representation. IEEE Transactions on Medical Imaging 40, 2021."
    )
    layout = {"train/MR/Case*.nii.gz": 172, "train/Mask/mask_case*.nii.gz": 172}
    gigabytes = 2.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "train/Mask/mask_case*.nii.gz"):
            number = label.name.removeprefix("mask_case").removesuffix(".nii.gz")
            yield Case(
                id=f"case{number}",
                patient=number,
                images=(ImageFile(path=origin / f"train/MR/Case{number}.nii.gz", modality="T2 MRI"),),
                annotations=(LabelMap(label, _LABELS),),
            )
