"""VerSe: vertebrae in CT."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Split, files, register

_LEVELS = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 13)),
    *(f"L{i}" for i in range(1, 7)),
)
_VERTEBRAE = {f"{level} vertebra": value for value, level in enumerate(_LEVELS, start=1)} | {
    "T13 vertebra": 28
}
# Drawn in only a few of the scans that show them.
_NOT_EVERYWHERE = {"sacrum": 26, "coccyx": 27}
_LABELS = _VERTEBRAE | _NOT_EVERYWHERE
_PARTS: tuple[Split, ...] = ("train", "validation", "test")


@register
class VerSe(Adapter):
    name = "verse"
    title = "VerSe"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "CC BY-SA 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://github.com/anjany/verse"
    citation = (
        "Sekuboyina et al. VerSe: A Vertebrae labelling and segmentation benchmark for multi-detector CT images. "
        "Medical Image Analysis 73, 2021."
    )
    layout = {
        "dataset-*/rawdata/*/*_ct.nii.gz": 374,
        "dataset-*/derivatives/*/*_seg-vert_msk.nii.gz": 374,
    }
    gigabytes = 50.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "dataset-*/derivatives/*/*_seg-vert_msk.nii.gz"):
            key = label.name.removesuffix("_seg-vert_msk.nii.gz")
            subject = label.parent.name
            part = label.parents[2]  # dataset-01training, dataset-02validation, dataset-03test
            yield Case(
                id=key,
                patient=subject.removeprefix("sub-"),
                split=next((split for split in _PARTS if split in part.name), None),
                images=(ImageFile(path=part / "rawdata" / subject / f"{key}_ct.nii.gz", modality="CT"),),
                annotations=(LabelMap(label, _LABELS, partial=frozenset(_NOT_EVERYWHERE)),),
            )
