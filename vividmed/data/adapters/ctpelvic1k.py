"""CTPelvic1K: pelvic bones in CT of two clinics and of five other data sets.

The origin holds, besides the archives of the masks and of the two clinics, the images of the others, or links to them:
``BTCV/Abdomen`` and ``BTCV/Cervix`` with their ``RawData``, ``CT COLONOGRAPHY``, ``MSD/Task10_Colon`` and ``KiTS19``.

Value 4 of the masks, the lumbar vertebrae, is not used: only the lower ones are drawn.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Skipped, files, register
from vividmed.data.raw.images import read_original
from vividmed.processing.medical_image import MedicalImage

_LABELS = {"sacrum": 1, "right hip bone": 2, "left hip bone": 3}
_MASK = "*dataset*/**/*_mask_4label.nii*"
# Files of dataset 7 lack the prefix.
_NAME = re.compile(r"(?:dataset([1-7])_)?(.+)_mask_4label\.nii(?:\.gz)?")

Located = tuple[str, str, list[Path]]
"""Id of the case, key of the patient, and the files or folders that may be its image."""


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
        "Most images belong to other data sets, among them BTCV, whose terms hold for what is made of them."
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for mask in files(origin, _MASK):
            match = _NAME.fullmatch(mask.name)
            if match is None:
                continue
            number, name = match.groups(default="7")
            key, patient, found = _SOURCES[number](origin, name)
            if len(found) != 1:
                yield Skipped(key, f"{len(found)} images fit the mask {mask.name}")
                continue
            read = None if found[0].is_dir() else read_like_itk
            yield Case(
                id=key,
                patient=patient,
                images=(ImageFile(path=found[0], modality="CT", read=read),),
                annotations=(LabelMap(mask, _LABELS, read=read_like_itk),),
            )


def read_like_itk(path: Path) -> MedicalImage:
    """Read a NIfTI file; one that does not place its volume in the patient was written from DICOM by ITK.

    Its axes then run left, back and up, whereas nibabel takes them to run left, forward and up. ITK itself is no reader
    for it: it fills up what is missing of a truncated file.
    """
    image = read_original(path)
    header = nib.Nifti1Image.from_filename(path).header
    if header["sform_code"] or header["qform_code"]:
        return image
    x, y, z = header.get_zooms()[:3]
    return replace(image, affine=np.diag([-x, -y, z, 1.0]))


def series_folders(subject: Path, number: str) -> list[Path]:
    """Folders of a subject of TCIA that hold a series of a number, ``<subject>/<study>/<number>.000000-<text>``."""
    return sorted(path for path in subject.glob(f"*/{number}.*") if path.is_dir())


def _btcv_abdomen(origin: Path, name: str) -> Located:
    number = name.removeprefix("img")
    found = sorted(origin.glob(f"BTCV/Abdomen/RawData/T*ing/img/{name}.nii.gz"))
    return f"BTCV-Abdomen-{number}", f"btcv-abdomen:{number}", found


def _colonography(origin: Path, name: str) -> Located:
    subject, _, rest = name.partition("_")  # <subject>_<series>_<slices>
    number = rest.partition("_")[0]
    found = series_folders(origin / "CT COLONOGRAPHY" / subject, number)
    return f"COLONOG-{subject}", f"ct-colonography:{subject}", found


def _msd_colon(origin: Path, name: str) -> Located:
    number = name.removeprefix("colon_")
    found = sorted(origin.glob(f"MSD/Task10_Colon/imagesT*/{name}.nii.gz"))
    return f"MSD-T10-{number}", f"msd-task10-colon:{number}", found


def _kits19(origin: Path, name: str) -> Located:
    number = name.removeprefix("case_")
    return f"KiTS19-{number}", f"kits19:{number}", sorted(origin.glob(f"KiTS19/data/{name}/imaging.nii.gz"))


def _btcv_cervix(origin: Path, name: str) -> Located:
    number = name.removesuffix("_Image")
    found = sorted(origin.glob(f"BTCV/Cervix/RawData/T*ing/img/{number}-Image.nii.gz"))
    return f"BTCV-Cervix-{number}", f"btcv-cervix:{number}", found


def _clinic(number: str) -> Callable[[Path, str], Located]:
    def locate(origin: Path, name: str) -> Located:
        found = sorted(origin.glob(f"*dataset{number}*/**/dataset{number}_{name}_data.nii.gz"))
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
