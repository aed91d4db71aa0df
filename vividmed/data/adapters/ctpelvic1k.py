"""CTPelvic1K: pelvic bones in CT of two clinics and of five other data sets.

The origin contains, in addition to the archives of the masks and of the two clinics, the images of the others or links
to them: ``BTCV/Abdomen`` and ``BTCV/Cervix`` with their ``RawData``, ``CT COLONOGRAPHY``, ``MSD/Task10_Colon`` and
``KiTS19``.

The masks' value 4, the lumbar vertebrae, is not used: only the lower ones are drawn.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from glob import escape
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, LabelMap, Listed, Skipped, each_case, files, register
from vividmed.data.raw.borrowed_images import Located, case_of_only_image, read_like_itk, series_folders

_LABELS = {"sacrum": 1, "right hip bone": 2, "left hip bone": 3}
_LUMBAR_VERTEBRAE = 4
_MASK = "*dataset*/**/*_mask_4label.nii*"
# Files of dataset 7 lack the prefix.
_NAME = re.compile(r"(?:dataset([1-7])_)?(.+)_mask_4label\.nii(?:\.gz)?")


@register
class CTPelvic1K(Adapter):
    name = "ctpelvic1k"
    title = "CTPelvic1K"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "CC BY-NC-SA 4.0 (not confirmed); images of other data sets under their own licences"
    access = "registered"
    redistribute = "no"
    terms = (
        "Most images belong to other data sets, among them BTCV, whose terms also cover data made from them."
    )
    homepage = "https://github.com/MIRACLE-Center/CTPelvic1K"
    citation = (
        "Liu et al. Deep learning to segment pelvic bones: large-scale CT datasets and baseline models. International "
        "Journal of Computer Assisted Radiology and Surgery 16, 2021."
    )
    layout = {
        _MASK: None,
        "*dataset6*/**/dataset6_*_data.nii.gz": None,
        "*dataset7*/**/dataset7_*_data.nii.gz": None,
        "BTCV/Abdomen/RawData/Training/img/img*.nii.gz": 30,
        "BTCV/Cervix/RawData/Training/img/*-Image.nii.gz": 30,
        "CT COLONOGRAPHY/*": None,
        "MSD/Task10_Colon/imagesTr/colon_*.nii.gz": 126,
        "KiTS19/data/case_*/imaging.nii.gz": None,
    }
    gigabytes = 200.0
    shares_patients = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        masks = [mask for mask in files(origin, _MASK) if _NAME.fullmatch(mask.name)]
        yield from each_case(((mask.name, mask) for mask in masks), partial(_case, origin=origin))


def _case(mask: Path, *, origin: Path) -> Case | Skipped:
    match = _NAME.fullmatch(mask.name)
    number, name = match.groups(default="7") if match else ("7", mask.name)
    annotation = LabelMap(mask, _LABELS, ignored=_LUMBAR_VERTEBRAE, read=read_like_itk)
    return case_of_only_image(*_SOURCES[number](origin, name), annotation)


def _btcv_abdomen(origin: Path, name: str) -> Located:
    number = name.removeprefix("img")
    found = sorted(origin.glob(f"BTCV/Abdomen/RawData/T*ing/img/{escape(name)}.nii.gz"))
    return f"BTCV-Abdomen-{number}", f"btcv-abdomen:{number}", found


def _colonography(origin: Path, name: str) -> Located:
    subject, _, rest = name.partition("_")  # <subject>_<series>_<slices>
    number = rest.partition("_")[0]
    found = series_folders(origin / "CT COLONOGRAPHY" / subject, number)
    return f"COLONOG-{subject}", f"ct-colonography:{subject}", found


def _msd_colon(origin: Path, name: str) -> Located:
    number = name.removeprefix("colon_")
    found = sorted(origin.glob(f"MSD/Task10_Colon/imagesT*/{escape(name)}.nii.gz"))
    return f"MSD-T10-{number}", f"msd-task10-colon:{number}", found


def _kits19(origin: Path, name: str) -> Located:
    number = name.removeprefix("case_")
    return (
        f"KiTS19-{number}",
        f"kits19:{number}",
        sorted(origin.glob(f"KiTS19/data/{escape(name)}/imaging.nii.gz")),
    )


def _btcv_cervix(origin: Path, name: str) -> Located:
    number = name.removesuffix("_Image")
    found = sorted(origin.glob(f"BTCV/Cervix/RawData/T*ing/img/{escape(number)}-Image.nii.gz"))
    return f"BTCV-Cervix-{number}", f"btcv-cervix:{number}", found


def _clinic(number: str) -> Callable[[Path, str], Located]:
    def locate(origin: Path, name: str) -> Located:
        found = sorted(origin.glob(f"*dataset{number}*/**/dataset{number}_{escape(name)}_data.nii.gz"))
        return name, name, found

    return locate


_SOURCES: dict[str, Callable[[Path, str], Located]] = {
    "1": _btcv_abdomen,
    "2": _colonography,
    "3": _msd_colon,
    "4": _kits19,
    "5": _btcv_cervix,
    "6": _clinic("6"),
    "7": _clinic("7"),
}
