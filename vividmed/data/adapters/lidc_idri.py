"""LIDC-IDRI: lung nodules outlined by up to four readers in chest CT, with the lungs and trachea of LUNA16.

The origin contains the collection as TCIA distributes it, ``LIDC-IDRI/<patient>/<study>/<series>``, the XML files of
the readings in any folder, and optionally ``seg-lungs-LUNA16`` of the LUNA16 challenge.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    DrawnMasks,
    ImageFile,
    LabelMap,
    Skipped,
    files,
    register,
)
from vividmed.data.raw.case import printable
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_NODULE = "lung nodule"
_LUNGS = {"left lung": 3, "right lung": 4, "trachea": 5}
_SERIES_UID = re.compile(r"<SeriesInstanceUid>\s*([0-9.]+)\s*<", re.IGNORECASE)


@register
class LIDCIDRI(Adapter):
    name = "lidc-idri"
    title = "LIDC-IDRI"
    modalities = ("CT", "contrast-enhanced CT")
    targets = (_NODULE, *_LUNGS)
    licence = "CC BY 3.0 (LIDC-IDRI), CC BY 4.0 (LUNA16)"
    access = "open"
    redistribute = "yes"
    homepage = "https://www.cancerimagingarchive.net/collection/lidc-idri/"
    citation = (
        "Armato et al. The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI): a "
        "completed reference database of lung nodules on CT scans. Medical Physics 38, 2011. Setio et al. "
        "Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in "
        "computed tomography images: The LUNA16 challenge. Medical Image Analysis 42, 2017."
    )
    layout = {
        "LIDC-IDRI/LIDC-IDRI-*": 1010,
        "**/*.xml": 1018,
        "seg-lungs-LUNA16/*.mhd": 888,
    }
    gigabytes = 133.0
    exclude_minimum = True

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        readings = _readings(origin)
        for folder in files(origin, "LIDC-IDRI/LIDC-IDRI-*/*/*"):
            patient = folder.parents[1].name
            header = _header(folder)
            series = str(header.get("SeriesInstanceUID") or folder.name)
            key = f"{patient}_{series}"
            if header.get("Modality", "CT") != "CT":
                yield Skipped(key, f"it is not CT but {printable(str(header.Modality))}")
                continue
            if series not in readings:
                yield Skipped(key, "no XML file contains a reading of it")
                continue
            contrast = "ContrastBolusAgent" in header and bool(header.ContrastBolusAgent)
            reading, marked = readings[series]
            nodules = DrawnMasks(
                (_NODULE,), partial(_nodules, reading), (reading,), partial=frozenset({_NODULE})
            )
            lungs = origin / f"seg-lungs-LUNA16/{series}.mhd"
            yield Case(
                id=key,
                patient=patient,
                images=(ImageFile(path=folder, modality="contrast-enhanced CT" if contrast else "CT"),),
                annotations=(nodules, LabelMap(lungs, _LUNGS)) if lungs.exists() else (nodules,),
                # Nodules below 3 mm are marked by a point: they have no mask, but are not absent either.
                absent=() if marked else (_NODULE,),
            )


def _readings(origin: Path) -> dict[str, tuple[Path, bool]]:
    """Series to its XML file, and whether any reader marked a nodule of any size in it."""
    found: dict[str, tuple[Path, bool]] = {}
    for path in files(origin, "**/*.xml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if match := _SERIES_UID.search(text):
            found.setdefault(match[1], (path, "<unblindedReadNodule" in text))
    return found


def _header(folder: Path) -> pydicom.Dataset:
    """Fields of the first file of a series; empty if it cannot be read, because of which the case fails later."""
    wanted = ["Modality", "SeriesInstanceUID", "ContrastBolusAgent"]
    for path in sorted(folder.glob("[!.]*.dcm"))[:1]:
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        except (OSError, EOFError, ValueError, pydicom.errors.InvalidDicomError):
            break
    return pydicom.Dataset()


def _nodules(reading: Path, image: MedicalImage) -> Iterable[tuple[str, np.ndarray]]:
    """Yield one mask per nodule: the voxels inside the outlines of at least half of the readers who outlined it."""
    outlined = _outlined(reading, image)
    if not outlined:
        return
    overlap = [
        [one != other and np.intersect1d(a, b, assume_unique=True).size > 0 for other, b in outlined]
        for one, a in outlined
    ]
    count, groups = connected_components(csr_array(np.array(overlap)), directed=False)
    for group in range(count):
        by_reader: dict[int, np.ndarray] = {}
        for (reader, voxels), number in zip(outlined, groups, strict=True):
            if number == group:
                by_reader[reader] = np.union1d(by_reader.get(reader, voxels), voxels)
        voxels, votes = np.unique(np.concatenate(list(by_reader.values())), return_counts=True)
        mask = np.zeros(image.size, bool)
        mask.flat[voxels[2 * votes >= len(by_reader)]] = True
        yield _NODULE, mask


def _outlined(reading: Path, image: MedicalImage) -> list[tuple[int, np.ndarray]]:
    """Reader, and sorted flat indices of the voxels, of each nodule that encloses any."""
    try:
        sessions = ElementTree.parse(reading).getroot().findall("{*}readingSession")
        found = []
        for reader, session in enumerate(sessions):
            for nodule in session.findall("{*}unblindedReadNodule"):
                voxels: dict[bool, list[np.ndarray]] = {
                    True: [np.empty(0, np.int64)],
                    False: [np.empty(0, np.int64)],
                }
                for roi in nodule.findall("{*}roi"):
                    included = (roi.findtext("{*}inclusion") or "").strip().upper() != "FALSE"
                    voxels[included].append(_inside(roi, image))
                inside = np.setdiff1d(np.concatenate(voxels[True]), np.concatenate(voxels[False]))
                if inside.size:
                    found.append((reader, inside))
    except (OSError, ElementTree.ParseError, OverflowError, TypeError, ValueError) as error:
        raise VividMedError(f"{reading}: cannot be read as a reading ({error}); copy it again") from error
    return found


def _inside(roi: ElementTree.Element, image: MedicalImage) -> np.ndarray:
    """Flat indices of the voxels within an outline, which runs through the first voxels outside."""
    z = round((float(roi.findtext("{*}imageZposition") or "nan") - image.affine[2, 3]) / image.affine[2, 2])
    points = [
        (int(edge.findtext("{*}xCoord") or ""), int(edge.findtext("{*}yCoord") or ""))
        for edge in roi.findall("{*}edgeMap")
    ]
    if len(points) < 3:
        return np.empty(0, np.int64)
    depth, height, width = image.size
    if not 0 <= z < depth or any(not (-1 <= x <= width and -1 <= y <= height) for x, y in points):
        raise ValueError("an outline leaves the scan")
    x0, y0 = np.min(points, axis=0)
    size = np.max(points, axis=0) - (x0, y0) + 1
    canvas = Image.new("1", (int(size[0]), int(size[1])))
    ImageDraw.Draw(canvas).polygon([(int(x - x0), int(y - y0)) for x, y in points], fill=1, outline=0)
    y, x = np.nonzero(np.asarray(canvas))
    return np.ravel_multi_index((np.full_like(x, z), y + y0, x + x0), image.size)
