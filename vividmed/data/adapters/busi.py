"""BUSI: benign and malignant lesions in breast ultrasound.

The images show 600 women, but nothing says which image shows whom: a patient may occur under several numbers, and so in
several splits.
"""

from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, MaskFiles, files, register

_TUMOUR, _BENIGN, _MALIGNANT = "breast tumor", "benign breast tumor", "breast cancer"
_GRADES = ("normal", "benign", "malignant")


@register
class BUSI(Adapter):
    name = "busi"
    title = "BUSI"
    modalities = ("ultrasound",)
    targets = (_TUMOUR, _BENIGN, _MALIGNANT)
    licence = "CC0 or CC BY (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the images are shared."
    homepage = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
    citation = "Al-Dhabyani et al. Dataset of breast ultrasound images. Data in Brief 28, 2020."
    layout = {
        "normal/normal (*).png": 133,
        "benign/benign (*).png": 437,
        "malignant/malignant (*).png": 210,
        "normal/normal (*)_mask.png": 133,
        "benign/benign (*)_mask.png": 437,
        "malignant/malignant (*)_mask.png": 210,
    }
    gigabytes = 0.3

    def cases(self, origin: Path) -> Iterator[Case]:
        for grade in _GRADES:
            for image in files(origin, f"{grade}/{grade} (*).png"):
                key = image.stem
                # One file per lesion: <key>_mask.png, <key>_mask_1.png, ...; a normal breast has one that is empty.
                further = sorted(image.parent.glob(f"{escape(key)}_mask_*.png"))
                yield Case(
                    id=key,
                    patient=key,
                    images=(ImageFile(path=image, modality="ultrasound"),),
                    annotations=(
                        MaskFiles(_by_target(grade, (image.with_name(f"{key}_mask.png"), *further))),
                    ),
                )


def _by_target(grade: str, masks: tuple[Path, ...]) -> Mapping[str, tuple[Path, ...]]:
    """Masks under their kind of lesion; the grade applies to all lesions of an image."""
    return {
        _TUMOUR: masks,
        _BENIGN: masks if grade == "benign" else (),
        _MALIGNANT: masks if grade == "malignant" else (),
    }
