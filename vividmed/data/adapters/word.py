"""WORD: abdominal organs in CT, including twenty scans of LiTS labelled in the same way.

The origin contains, in addition to the data set, ``MSD/Task03_Liver`` of the Medical Segmentation Decathlon or a link to
it. These are the scans of LiTS; without them, the twenty are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Skipped, Split, files, register

_LABELS = {
    "liver": 1,
    "spleen": 2,
    "left kidney": 3,
    "right kidney": 4,
    "stomach": 5,
    "gallbladder": 6,
    "esophagus": 7,
    "pancreas": 8,
    "duodenum": 9,
    "colon": 10,
    "intestine": 11,
    "adrenal gland": 12,  # both sides
    "rectum": 13,
    "bladder": 14,
    "head of left femur": 15,
    "head of right femur": 16,
}
_PARTS: tuple[tuple[str, Split], ...] = (("Tr", "train"), ("Val", "validation"))
_OF_LITS = "addition_validation_from_LiTS/lablesTs"  # the spelling of the data set
_LITS_SCANS = "MSD/Task03_Liver/imagesTr"


@register
class WORD(Adapter):
    name = "word"
    title = "WORD"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "Research use (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The authors give the scans on request; no known terms allow sharing them."
    homepage = "https://github.com/HiLab-git/WORD"
    citation = (
        "Luo et al. WORD: A large scale dataset, benchmark and clinical applicable study for abdominal organ "
        "segmentation from CT image. Medical Image Analysis 82, 2022."
    )
    layout = {
        "imagesTr/word_*.nii.gz": 100,
        "labelsTr/word_*.nii.gz": 100,
        "imagesVal/word_*.nii.gz": 20,
        "labelsVal/word_*.nii.gz": 20,
        f"{_OF_LITS}/*_word_label.nii.gz": 20,
    }
    gigabytes = 10.0
    shares_patients = True
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for suffix, split in _PARTS:
            for label in files(origin, f"labels{suffix}/word_*.nii.gz"):
                key = label.name.removesuffix(".nii.gz")
                yield Case(
                    id=key,
                    patient=key.removeprefix("word_"),
                    split=split,
                    images=(ImageFile(path=origin / f"images{suffix}" / label.name, modality="CT"),),
                    annotations=(LabelMap(label, _LABELS),),
                )
        for label in files(origin, f"{_OF_LITS}/*_word_label.nii.gz"):
            key = label.name.removesuffix("_word_label.nii.gz")
            if not (origin / _LITS_SCANS).is_dir():
                yield Skipped(key, f"it is a scan of LiTS; copy or link it into {_LITS_SCANS}")
                continue
            yield Case(
                id=key,
                patient=f"lits:{key.removeprefix('liver_')}",
                images=(ImageFile(path=origin / _LITS_SCANS / f"{key}.nii.gz", modality="CT"),),
                annotations=(LabelMap(label, _LABELS),),
            )
