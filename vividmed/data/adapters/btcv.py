"""BTCV (Beyond the Cranial Vault): organs in abdominal and in pelvic CT."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register


class _BTCV(Adapter):
    """One region of BTCV.

    Attributes:
        image_name: pattern of the image files, with ``*`` for the number of the patient.
        label_name: pattern of the label maps.
        labels: target to label value.
    """

    image_name: ClassVar[str]
    label_name: ClassVar[str]
    labels: ClassVar[Mapping[str, int]]
    modalities = ("CT",)
    licence = "CC BY 4.0 (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = (
        "Synapse gives the scans to registered users; the licence must be confirmed before they are shared."
    )
    homepage = "https://www.synapse.org/Synapse:syn3193805"
    shares_patients = True
    citation = "Landman et al. MICCAI Multi-Atlas Labeling Beyond the Cranial Vault. Synapse, 2015."

    def cases(self, origin: Path) -> Iterator[Case]:
        before, after = self.label_name.split("*")
        for label in files(origin, f"RawData/Training/label/{self.label_name}"):
            number = label.name.removeprefix(before).removesuffix(after)
            image = origin / "RawData/Training/img" / self.image_name.replace("*", number)
            yield Case(
                id=number,
                patient=number,
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(LabelMap(label, self.labels),),
            )


@register
class BTCVAbdomen(_BTCV):
    name = "btcv-abdomen"
    title = "BTCV Abdomen"
    image_name = "img*.nii.gz"
    label_name = "label*.nii.gz"
    labels = {
        "spleen": 1,
        "right kidney": 2,
        "left kidney": 3,
        "gallbladder": 4,
        "esophagus": 5,
        "liver": 6,
        "stomach": 7,
        "aorta": 8,
        "inferior vena cava": 9,
        "portal vein and splenic vein": 10,
        "pancreas": 11,
        "right adrenal gland": 12,
        "left adrenal gland": 13,
    }
    targets = tuple(labels)
    layout = {"RawData/Training/img/img*.nii.gz": 30, "RawData/Training/label/label*.nii.gz": 30}
    gigabytes = 1.6


@register
class BTCVCervix(_BTCV):
    name = "btcv-cervix"
    title = "BTCV Cervix"
    image_name = "*-Image.nii.gz"
    label_name = "*-Mask.nii.gz"
    labels = {"bladder": 1, "uterus": 2, "rectum": 3, "small intestine": 4}
    targets = tuple(labels)
    layout = {"RawData/Training/img/*-Image.nii.gz": 30, "RawData/Training/label/*-Mask.nii.gz": 30}
    gigabytes = 2.0
