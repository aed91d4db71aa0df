"""PENGWIN: bones of fractured pelves in CT and in radiographs simulated from these scans.

Fragments of a bone are merged: they are pieces of it, not instances.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vividmed.data.adapters.base import Adapter, Case, DrawnMasks, ImageFile, LabelMap, files, register
from vividmed.data.raw.images import read_original
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_BONES = ("sacrum", "left hip bone", "right hip bone")
_FRAGMENTS = 10
_LABELS = {
    bone: range(_FRAGMENTS * index + 1, _FRAGMENTS * (index + 1) + 1) for index, bone in enumerate(_BONES)
}
_FLOOR = 0.01
"""Added before the logarithm, as the organisers do for display."""


class _Pengwin(Adapter):
    targets = _BONES
    licence = "CC BY-NC-SA 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://pengwin.grand-challenge.org/"
    citation = (
        "Liu et al. Automatic pelvic fracture segmentation: a deep learning approach and benchmark dataset. "
        "Frontiers in Medicine 12, 2025."
    )


@register
class PengwinCT(_Pengwin):
    name = "pengwin-t1"
    title = "PENGWIN Task 1"
    modalities = ("CT",)
    layout = {"PENGWIN_CT_train_images_part*/*.mha": 100, "PENGWIN_CT_train_labels/*.mha": 100}
    gigabytes = 12.0

    def cases(self, origin: Path) -> Iterator[Case]:
        images = {path.stem: path for path in files(origin, "PENGWIN_CT_train_images_part*/*.mha")}
        for label in files(origin, "PENGWIN_CT_train_labels/*.mha"):
            key = label.stem
            image = images.get(key, origin / "PENGWIN_CT_train_images_part1" / label.name)
            yield Case(
                id=key,
                patient=key,
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(LabelMap(label, _LABELS),),
            )


@register
class PengwinRadiograph(_Pengwin):
    name = "pengwin-t2"
    title = "PENGWIN Task 2"
    modalities = ("X-ray",)
    patients = "pengwin-t1"
    layout = {"train/input/images/x-ray/*.tif": 50000, "train/output/images/x-ray/*.tif": 50000}
    gigabytes = 80.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "train/output/images/x-ray/*.tif"):
            yield Case(
                id=label.stem,
                patient=label.stem.partition("_")[0],  # <number of the CT>_<number of the view>
                images=(
                    ImageFile(
                        path=origin / "train/input/images/x-ray" / label.name,
                        modality="X-ray",
                        read=_read_attenuation,
                    ),
                ),
                annotations=(DrawnMasks(_BONES, partial(_draw_bones, label), (label,)),),
            )


def _read_attenuation(path: Path) -> MedicalImage:
    """Read transmitted intensity, which is bright in empty space; radiographs show its negative logarithm."""
    image = read_original(path)
    array = image.array.astype(np.float32)
    return replace(image, array=-np.log(array - array.min() + _FLOOR))


def _draw_bones(path: Path, image: MedicalImage) -> Iterator[tuple[str, np.ndarray]]:
    """Bones overlap in projection: bit ``10 * bone + fragment`` of a 32-bit word, fragments from 1, is one fragment."""
    words = read_original(path).array[0]
    if words.dtype.kind not in "iu" or words.dtype.itemsize < 4:
        raise VividMedError(f"{path}: contains {words.dtype} values; give the 32-bit labels of the data set")
    bits = [((1 << _FRAGMENTS) - 1) << (_FRAGMENTS * index + 1) for index in range(len(_BONES))]
    if (words & ~np.int64(sum(bits))).any():
        raise VividMedError(f"{path}: sets bits that belong to no bone; give the labels of the data set")
    for bone, mask in zip(_BONES, bits, strict=True):
        yield bone, words & mask != 0
