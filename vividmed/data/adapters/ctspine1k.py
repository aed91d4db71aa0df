"""CTSpine1K: every visible vertebra in CT of four other data sets.

The origin contains, in addition to the masks and ``Path.csv``, the images or links to them: ``CT COLONOGRAPHY``,
``HNSCC-3DCT-RT``, ``MSD/Task03_Liver`` and ``CT-COVID-19``.

The authors' split is not kept: other data sets train on any scan of LiTS and CT COLONOGRAPHY.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from glob import escape
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, LabelMap, Listed, Skipped, each_case, files, register
from vividmed.data.raw.borrowed_images import Located, case_of_only_image, read_like_itk, series_folders
from vividmed.data.raw.documents import read_text

_REGIONS = (("C", 1, 7), ("T", 8, 12), ("L", 20, 6))
_LABELS = {
    f"{region}{number + 1} vertebra": first + number
    for region, first, count in _REGIONS
    for number in range(count)
}
_NOT_VERTEBRAE = (26, 27, 28)
"""Sacrum, coccyx and a 13th thoracic vertebra in the scheme of VerSe, which the masks follow."""
_MASK = "CTSpine1K/*/gt/*_seg.nii.gz"
_SERIES = "Path.csv"


@register
class CTSpine1K(Adapter):
    name = "ctspine1k"
    title = "CTSpine1K"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "CC BY-NC-SA 4.0 (not confirmed); images of other data sets under their own licences"
    access = "open"
    redistribute = "no"
    terms = "The images belong to other data sets, whose licences must be confirmed before they are shared."
    homepage = "https://github.com/MIRACLE-Center/CTSpine1K"
    citation = (
        "Deng et al. CTSpine1K: A Large-Scale Dataset for Spinal Vertebrae Segmentation in Computed Tomography. "
        "arXiv:2105.14711, 2021."
    )
    layout = {
        _MASK: 1005,
        _SERIES: 1,
        "CT COLONOGRAPHY/*": None,
        "HNSCC-3DCT-RT/HN_P*": None,
        "MSD/Task03_Liver/imagesT*/liver_*.nii.gz": 201,
        "CT-COVID-19/*/*/volume-covid19-*.nii.gz": None,
    }
    gigabytes = 150.0
    shares_patients = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        make = partial(_case, origin=origin, series=_series(origin / _SERIES))
        yield from each_case(((mask.name, mask) for mask in files(origin, _MASK)), make)


def _case(mask: Path, *, origin: Path, series: Mapping[str, str]) -> Case | Skipped:
    located = _locate(origin, mask.name.removesuffix("_seg.nii.gz"), series)
    annotation = LabelMap(mask, _LABELS, ignored=_NOT_VERTEBRAE, read=read_like_itk)
    return case_of_only_image(*located, annotation)


def _locate(origin: Path, name: str, series: Mapping[str, str]) -> Located:
    if name.startswith("liver_"):
        number = name.removeprefix("liver_")
        found = sorted(origin.glob(f"MSD/Task03_Liver/imagesT*/{escape(name)}.nii.gz"))
        return f"MSD-T03-{number}", f"lits:{number}", found
    if name.startswith("volume-covid19"):
        volume = name.removesuffix("_ct")
        subject = volume.removeprefix("volume-covid19-")
        found = sorted(origin.glob(f"CT-COVID-19/*/*/{escape(volume)}.nii.gz"))
        return f"COVID19-{subject}", f"ct-covid-19:{subject}", found
    if name.startswith("HN_"):
        return f"HNSCC-{name}", f"hnscc-3dct-rt:{name}", _folders(origin / "HNSCC-3DCT-RT", series.get(name))
    return (
        f"COLONOG-{name}",
        f"ct-colonography:{name}",
        _folders(origin / "CT COLONOGRAPHY", series.get(name)),
    )


def _folders(collection: Path, place: str | None) -> list[Path]:
    """The folder of a series, or those with its number, because the ends of the names differ between downloads."""
    if place is None:
        return []
    if (collection / place).is_dir():
        return [collection / place]
    subject, _, series = place.split("/")
    return series_folders(collection / subject, series.partition(".")[0])


def _series(path: Path) -> dict[str, str]:
    """Subject to the folder of the series that was used, ``<subject>/<study>/<series>``."""
    lines = map(str.strip, read_text(path).splitlines())
    return {line.partition("/")[0]: line for line in lines if line.count("/") == 2}
