"""Medical Segmentation Decathlon: nine of its tasks, which share one layout.

Task01 (brain tumours) consists of older BraTS data with other labels and has no adapter.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register


class _Decathlon(Adapter):
    """One task of the Decathlon.

    Attributes:
        labels: target to the label value, or values, that make it up.
    """

    labels: ClassVar[Mapping[str, int | tuple[int, ...]]]
    licence = "CC BY-SA 4.0"
    access = "open"
    redistribute = "yes"
    terms = "Copies and data made from them stay under CC BY-SA 4.0."
    homepage = "http://medicaldecathlon.com/"
    citation = "Antonelli et al. The Medical Segmentation Decathlon. Nature Communications 13, 2022."

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "labelsTr/*.nii.gz"):
            image = origin / "imagesTr" / label.name
            key = label.name.removesuffix(".nii.gz")
            # Several sequences lie along the last axis of one file.
            channels = range(len(self.modalities)) if len(self.modalities) > 1 else (None,)
            yield Case(
                id=key,
                patient=key.rpartition("_")[2],
                images=tuple(
                    ImageFile(path=image, modality=modality, channel=channel)
                    for modality, channel in zip(self.modalities, channels, strict=True)
                ),
                annotations=(LabelMap(label, self.labels),),
            )


def _layout(count: int) -> dict[str, int]:
    return {"imagesTr/*.nii.gz": count, "labelsTr/*.nii.gz": count}


@register
class DecathlonHeart(_Decathlon):
    name = "msd-task02-heart"
    title = "MSD Task02 Heart"
    modalities = ("MRI",)
    labels = {"left atrium": 1}
    targets = tuple(labels)
    layout = _layout(20)
    gigabytes = 0.4


@register
class DecathlonLiver(_Decathlon):
    name = "msd-task03-liver"
    title = "MSD Task03 Liver"
    modalities = ("CT",)
    labels = {"liver": (1, 2), "liver tumor": 2}
    targets = tuple(labels)
    patients = "lits"  # the scans of LiTS under the same numbers
    layout = _layout(131)
    gigabytes = 27.0


@register
class DecathlonHippocampus(_Decathlon):
    name = "msd-task04-hippocampus"
    title = "MSD Task04 Hippocampus"
    modalities = ("T1 MRI",)
    labels = {"anterior hippocampus": 1, "posterior hippocampus": 2}
    targets = tuple(labels)
    layout = _layout(260)
    gigabytes = 0.03


@register
class DecathlonProstate(_Decathlon):
    name = "msd-task05-prostate"
    title = "MSD Task05 Prostate"
    modalities = ("T2 MRI", "ADC MRI")
    labels = {"peripheral zone of prostate": 1, "transition zone of prostate": 2}
    targets = tuple(labels)
    layout = _layout(32)
    gigabytes = 0.2


@register
class DecathlonLung(_Decathlon):
    name = "msd-task06-lung"
    title = "MSD Task06 Lung"
    modalities = ("CT",)
    labels = {"lung cancer": 1}  # all patients have non-small-cell lung cancer
    targets = tuple(labels)
    layout = _layout(63)
    gigabytes = 8.5


@register
class DecathlonPancreas(_Decathlon):
    name = "msd-task07-pancreas"
    title = "MSD Task07 Pancreas"
    modalities = ("CT",)
    labels = {"pancreas": (1, 2), "pancreatic tumor": 2}  # also cysts and tumours that are not malignant
    targets = tuple(labels)
    layout = _layout(281)
    gigabytes = 11.5


@register
class DecathlonHepaticVessel(_Decathlon):
    name = "msd-task08-hepaticvessel"
    title = "MSD Task08 HepaticVessel"
    modalities = ("CT",)
    labels = {"hepatic vessel": 1, "liver tumor": 2}
    targets = tuple(labels)
    layout = _layout(303)
    gigabytes = 8.7


@register
class DecathlonSpleen(_Decathlon):
    name = "msd-task09-spleen"
    title = "MSD Task09 Spleen"
    modalities = ("CT",)
    labels = {"spleen": 1}
    targets = tuple(labels)
    layout = _layout(41)
    gigabytes = 1.5


@register
class DecathlonColon(_Decathlon):
    name = "msd-task10-colon"
    title = "MSD Task10 Colon"
    modalities = ("CT",)
    labels = {"colon cancer": 1}
    targets = tuple(labels)
    shares_patients = True  # CTPelvic1K labels some of these scans
    layout = _layout(126)
    gigabytes = 5.8
