"""Read DICOM files, and folders that contain one DICOM series."""

import hashlib
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from transformers.utils import logging

from vividmed.errors import VividMedError
from vividmed.processing.dicom.attributes import FrameAttributes
from vividmed.processing.dicom.grid import SlicePlane, grid_affine, pixel_spacing, slice_plane, sort_slices
from vividmed.processing.dicom.values import PIXEL_KEYWORDS, claimed_size, decode, join_frames
from vividmed.processing.file_errors import readable_as
from vividmed.processing.limits import check_image_size, max_image_bytes
from vividmed.processing.medical_image import MedicalImage, picture_affine

logger = logging.get_logger(__name__)

_SUFFIXES = (".dcm", ".dicom", ".ima")
OTHER_MODALITIES = frozenset(
    [
        "AU",
        "DOC",
        "ECG",
        "EPS",
        "FID",
        "HD",
        "KO",
        "M3D",
        "PLAN",
        "PR",
        "REG",
        "RESP",
        "RTDOSE",
        "RTIMAGE",
        "RTPLAN",
        "RTRECORD",
        "RTSTRUCT",
        "RWV",
        "SEG",
        "SMR",
        "SR",
        "STAIN",
        "TEXTUREMAP",
    ]
)
"""Modalities of objects that accompany the images of a series."""
_EXPLICIT = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)
_CHUNK = 1 << 20


def is_dicom(path: Path) -> bool:
    """Whether a file carries the mark of DICOM after 128 bytes, or begins with a data element as older files do."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or _begins_with_element(head)


def read_dicom_file(path: Path, *, voi_window: bool = False) -> MedicalImage:
    """Read a DICOM file; a multi-frame file gives a volume, oriented if its frames state where they lie.

    Args:
        path: the file.
        voi_window: apply the display window (VOI LUT) of the file; otherwise values stay in modality units.

    Raises:
        VividMedError: unreadable or truncated file, a segmentation, no pixel data, a malformed field, an image larger than
            the limit, a mosaic, or frames that do not form a regular stack.
    """
    dataset = read_dataset(path)
    source = str(path)
    _refuse_mosaic(dataset, source)
    frames = decode(dataset, source, voi_window=voi_window)
    modality = dataset.get("Modality")
    if modality == "SEG":
        raise VividMedError(
            f"{source}: contains a DICOM segmentation, not an image; give the image that it belongs to"
        )
    count = frames.values.shape[1]
    fields = [FrameAttributes(dataset, index, source) for index in range(count)]
    flat_affine = picture_affine(pixel_spacing(fields[0]) or (1.0, 1.0))
    if count == 1:
        plane = slice_plane(fields[0])
        thickness = fields[0].number("SliceThickness") or 0
        affine = flat_affine if plane is None else grid_affine([plane], thickness if thickness > 0 else 1.0)
        return MedicalImage(join_frames([frames]), affine, modality, source, files=(path,))
    if not dataset.get("PerFrameFunctionalGroupsSequence"):
        return MedicalImage(join_frames([frames]), flat_affine, modality, source, files=(path,))
    planes = [slice_plane(field) for field in fields]
    placed = [plane for plane in planes if plane is not None]
    if not placed:
        return MedicalImage(join_frames([frames]), flat_affine, modality, source, files=(path,))
    if len(placed) < count:
        raise VividMedError(
            f"{source}: frame {planes.index(None) + 1} of {count} has no position, so the frames cannot be sorted; "
            "correct the header or export the file again"
        )
    return _stack(join_frames([frames]), placed, modality, source, (path,))


def read_dicom_series(folder: Path, *, voi_window: bool = False) -> MedicalImage:
    """Read a folder that contains exactly one DICOM series, sorted by position.

    Objects that accompany a series (a DICOMDIR, presentation states, segmentations, reports, radiotherapy objects) and
    files of other formats are left aside. A damaged or missing slice is an error.

    Args:
        folder: the folder.
        voi_window: apply the display window (VOI LUT) of the files.

    Raises:
        VividMedError: no DICOM image, several series, slices that do not lie on one regular grid (direction, spacing,
            position, size), two slices at one position, a missing slice, a mosaic, a malformed field, an unreadable
            file, or a volume larger than the limit. Series are named by a hash, never by their identifiers.
    """
    images = _image_files(folder)
    series = sorted({_hash(dataset.get("SeriesInstanceUID", "")) for dataset in images.values()})
    if len(series) > 1:
        raise VividMedError(
            f"{folder}: the folder mixes {len(series)} series ({', '.join(series)}); keep one series in a folder"
        )
    if len(images) == 1:
        return read_dicom_file(next(iter(images)), voi_window=voi_window)
    name = f"{folder} (series {series[0]})"
    planes = []
    for path, dataset in images.items():
        _refuse_mosaic(dataset, str(path))
        plane = slice_plane(FrameAttributes(dataset, 0, str(path)))
        if plane is None:
            raise VividMedError(
                f"{path}: has no position, so the series cannot be sorted; remove or repair the file"
            )
        planes.append(plane)
    first_path, first = next(iter(images.items()))
    for field in ("Rows", "Columns", "PhotometricInterpretation"):
        for path, dataset in images.items():
            if dataset.get(field) != first.get(field):
                what = "size" if field in ("Rows", "Columns") else field
                raise VividMedError(
                    f"{name}: {path.name} differs in {what} from {first_path.name}; keep one series in a folder"
                )
    frames = []
    files = tuple(images)
    for path in files:
        frames.append(decode(images.pop(path), str(path), voi_window=voi_window))
    if any(part.values.shape != frames[0].values.shape or part.values.shape[1] != 1 for part in frames):
        raise VividMedError(
            f"{name}: files contain different numbers of frames or channels; keep one series in a folder"
        )
    return _stack(join_frames(frames), planes, first.get("Modality"), name, files)


def _stack(
    values: np.ndarray, planes: list[SlicePlane], modality: str | None, source: str, files: tuple[Path, ...]
) -> MedicalImage:
    """Sort the slices of (C, D, H, W), and their files where each has one, by position."""
    order = sort_slices(planes, source)
    affine = grid_affine([planes[index] for index in order])
    if len(files) == len(order):
        files = tuple(files[index] for index in order)
    return MedicalImage(values[:, order], affine, modality, source, oriented=True, files=files)


def _image_files(folder: Path) -> dict[Path, Dataset]:
    """The images of a folder; what is not an image is left aside, what should be one but is damaged is an error."""
    images: dict[Path, Dataset] = {}
    others, strangers = [], []
    claimed = 0.0
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if not path.stat().st_size or not is_dicom(path):
            strangers.append(path)
            continue
        dataset = read_dataset(path)
        if not _is_image(dataset):
            others.append(path.name)
            continue
        if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
            raise VividMedError(f"{path}: the DICOM file contains no image; remove it or copy it again")
        frames, rows, columns, bytes_per_pixel = claimed_size(dataset, str(path))
        claimed += frames * bytes_per_pixel * rows * columns
        check_image_size(folder, (int(claimed),))
        images[path] = dataset
    if others:
        logger.info(f"{folder}: left aside {len(others)} DICOM files that are not images ({others[0]}, ...)")
    if not images:
        found = f"only {len(others)} other DICOM objects" if others else "no DICOM file"
        raise VividMedError(f"{folder}: the folder contains {found}; give a folder with one DICOM series")
    names = {_pattern(path) for path in images}
    for path in strangers:
        if path.suffix.lower() in _SUFFIXES or _pattern(path) in names:
            raise VividMedError(
                f"{path}: not a DICOM file, although its name is that of a slice; copy it again or remove it"
            )
    return images


def _is_image(dataset: Dataset) -> bool:
    sop_class = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    if str(dataset.get("Modality") or "") in OTHER_MODALITIES:
        return False
    if sop_class.name == sop_class or not sop_class:  # private or missing
        return "Rows" in dataset and "Columns" in dataset
    return "Image Storage" in sop_class.name


def _refuse_mosaic(dataset: Dataset, source: str) -> None:
    image_type = dataset.get("ImageType") or []
    values = [image_type] if isinstance(image_type, str) else list(image_type)
    if "MOSAIC" in [str(value).strip().upper() for value in values]:
        raise VividMedError(
            f"{source}: a mosaic, which tiles the slices of a volume in one 2D image, is not supported; convert the "
            "series to NIfTI first, for example with dcm2niix"
        )


def read_dataset(path: Path) -> Dataset:
    """Read a DICOM file of any kind.

    Raises:
        VividMedError: it cannot be read, or is too large.
    """
    with readable_as(path, "DICOM file"):
        check_image_size(path, (path.stat().st_size,))
        with path.open("rb") as file:
            head = file.read(132)
        if head[128:] != b"DICM" and not _begins_with_element(head):
            raise InvalidDicomError("it lacks the mark of DICOM and does not begin with a data element")
        _check_deflated(path)
        dataset = pydicom.dcmread(path, force=True)
        if not hasattr(dataset, "file_meta"):
            dataset.file_meta = FileMetaDataset()
        return dataset


def _check_deflated(path: Path) -> None:
    """Measure what a deflated file expands to, since pydicom expands it as a whole."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return
        meta = read_file_meta_info(path)
        length = meta.get("FileMetaInformationGroupLength")
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian or length is None:
            return
        file.seek(132 + 12 + int(length))
        inflate, expanded = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflate.unconsumed_tail or file.read(_CHUNK):
            expanded += len(inflate.decompress(chunk, _CHUNK))
            if expanded > max_image_bytes():
                check_image_size(path, (expanded,))


def _begins_with_element(head: bytes) -> bool:
    """Whether bytes look like the first data element of a file without preamble: group 2 or 8, and a sound length."""
    if len(head) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(f"{order}HH", head)
        if group in (2, 8) and element <= 0x0100:
            (length,) = struct.unpack_from(f"{order}I", head, 4)
            return head[4:6] in _EXPLICIT or length <= 128
    return False


def _pattern(path: Path) -> str:
    """Name of a file with its numbers left out, by which the files of a series resemble each other."""
    return re.sub(r"\d+", "0", path.name)


def _hash(identifier: Any) -> str:
    return hashlib.sha256(str(identifier).encode()).hexdigest()[:8]
