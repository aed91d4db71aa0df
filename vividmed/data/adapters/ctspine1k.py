"""CTSpine1K: every visible vertebra in CT of four other data sets.

The origin holds, besides the masks and ``Path.csv``, the images, or links to them: ``CT COLONOGRAPHY``,
``HNSCC-3DCT-RT``, ``MSD/Task03_Liver`` and ``CT-COVID-19``.

The authors' split is not kept: other data sets train on any scans of LiTS and of CT COLONOGRAPHY.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Skipped, files, register
from vividmed.data.adapters.ctpelvic1k import read_like_itk, series_folders
from vividmed.errors import VividMedError

_REGIONS = (("C", 1, 7), ("T", 8, 12), ("L", 20, 6))
_LABELS = {
    f"{region}{number + 1} vertebra": first + number
    for region, first, count in _REGIONS
    for number in range(count)
}
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        series = _series(origin / _SERIES)
        for mask in files(origin, _MASK):
            name = mask.name.removesuffix("_seg.nii.gz")
            key, patient, found = _locate(origin, name, series)
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


def _locate(origin: Path, name: str, series: Mapping[str, str]) -> tuple[str, str, list[Path]]:
    """Id of the case, key of the patient, and the files or folders that may be its image."""
    if name.startswith("liver_"):
        number = name.removeprefix("liver_")
        found = sorted(origin.glob(f"MSD/Task03_Liver/imagesT*/{name}.nii.gz"))
        return f"MSD-T03-{number}", f"lits:{number}", found
    if name.startswith("volume-covid19"):
        volume = name.removesuffix("_ct")
        subject = volume.removeprefix("volume-covid19-")
        found = sorted(origin.glob(f"CT-COVID-19/*/*/{volume}.nii.gz"))
        return f"COVID19-{subject}", f"ct-covid-19:{subject}", found
    if name.startswith("HN_"):
        return f"HNSCC-{name}", f"hnscc-3dct-rt:{name}", _folders(origin / "HNSCC-3DCT-RT", series.get(name))
    return (
        f"COLONOG-{name}",
        f"ct-colonography:{name}",
        _folders(origin / "CT COLONOGRAPHY", series.get(name)),
    )


def _folders(collection: Path, place: str | None) -> list[Path]:
    """The folder of a series, or those with its number: the end of the names differs between downloads."""
    if place is None:
        return []
    if (collection / place).is_dir():
        return [collection / place]
    subject, _, series = place.split("/")
    return series_folders(collection / subject, series.partition(".")[0])


def _series(path: Path) -> dict[str, str]:
    """Subject to the folder of the series that was used, ``<subject>/<study>/<series>``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VividMedError(
            f"{path}: not a readable list of series ({error}); take it from the repository of CTSpine1K"
        ) from error
    return {line.partition("/")[0]: line.strip() for line in lines if line.count("/") == 2}
