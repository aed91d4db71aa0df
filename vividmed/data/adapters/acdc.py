"""ACDC: both ventricles and the myocardium in short-axis cine MRI, at end diastole and end systole."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Split, files, register

_LABELS = {"right ventricle cavity": 1, "myocardium": 2, "left ventricle cavity": 3}
_PARTS: tuple[tuple[str, Split], ...] = (("training", "train"), ("testing", "test"))


@register
class ACDC(Adapter):
    name = "acdc"
    title = "ACDC"
    modalities = ("cine MRI",)
    targets = tuple(_LABELS)
    licence = "CC BY-NC-SA 4.0 (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The authors give the scans to registered users; the licence must be confirmed before they are shared."
    homepage = "https://www.creatis.insa-lyon.fr/Challenge/acdc/"
    citation = (
        "Bernard et al. Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and "
        "Diagnosis: Is the Problem Solved? IEEE Transactions on Medical Imaging 37, 2018."
    )
    layout = {
        "training/patient*/patient*_frame??_gt.nii.gz": 200,
        "training/patient*/patient*_frame??.nii.gz": 200,
        "testing/patient*/patient*_frame??_gt.nii.gz": 100,
        "testing/patient*/patient*_frame??.nii.gz": 100,
    }
    gigabytes = 2.3
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case]:
        for folder, split in _PARTS:
            for label in files(origin, f"{folder}/patient*/patient*_frame??_gt.nii.gz"):
                key = label.name.removesuffix("_gt.nii.gz")
                yield Case(
                    id=key,
                    patient=label.parent.name,
                    split=split,
                    images=(ImageFile(path=label.with_name(f"{key}.nii.gz"), modality="cine MRI"),),
                    annotations=(LabelMap(label, _LABELS),),
                )
