"""DICOM files and series -> :class:`MedicalImage`. No field that describes the patient is kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_voi_lut, pixel_array

from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage, picture_affine, unreadable

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTION_TOLERANCE = 1e-3
_SAME_POSITION = 1e-3
"""Millimetres within which two slices lie at one position."""
_GAP_TOLERANCE = 0.1
"""Largest deviation of a slice distance from the usual one, as a fraction; a missing slice gives 1."""


@dataclass(frozen=True)
class _Plane:
    """Where one slice lies, in DICOM's LPS+ mm."""

    position: np.ndarray
    row: np.ndarray
    """Direction in which the column index grows."""
    column: np.ndarray
    """Direction in which the row index grows."""
    spacing: tuple[float, float]
    """Millimetres a pixel along (y, x)."""

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.row, self.column)

    @property
    def distance(self) -> float:
        """Signed distance of the slice along its normal."""
        return float(self.position @ self.normal)

    def parallel(self, other: "_Plane") -> bool:
        """Same directions and pixel spacing."""
        ours, theirs = (np.r_[plane.row, plane.column, plane.spacing] for plane in (self, other))
        return np.allclose(ours, theirs, atol=_DIRECTION_TOLERANCE)


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark that DICOM files carry after 128 bytes."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom_file(path: Path, *, voi_window: bool = False) -> MedicalImage:
    """Read a DICOM file; a multi-frame file gives a volume, oriented if its frames tell where they lie.

    Args:
        path: the file.
        voi_window: apply the display window (VOI LUT) of the file; otherwise values stay in modality units.

    Raises:
        VividMedError: unreadable or truncated file, no pixel data, or frames that are no regular stack.
    """
    dataset = _read_dataset(path)
    frames = _pixels(dataset, path, voi_window=voi_window)
    modality = dataset.get("Modality")
    if frames.shape[1] == 1:
        plane = _plane(dataset)
        if plane is None:
            affine = picture_affine(_pixel_spacing(dataset) or (1.0, 1.0))
        else:
            affine = _affine([plane], thickness=float(dataset.get("SliceThickness") or 1.0))
        return MedicalImage(frames, affine, modality, str(path))
    planes = [_plane(dataset, frame) for frame in range(frames.shape[1])]
    if "PerFrameFunctionalGroupsSequence" not in dataset or None in planes:
        return MedicalImage(
            frames, picture_affine(_pixel_spacing(dataset) or (1.0, 1.0)), modality, str(path)
        )
    return _stack([frames[:, i] for i in range(len(planes))], planes, modality, str(path))  # type: ignore[arg-type]


def read_dicom_series(folder: Path, *, voi_window: bool = False) -> MedicalImage:
    """Read a folder that holds exactly one DICOM series, sorted by position.

    Args:
        folder: the folder; files that are not DICOM are passed over.
        voi_window: apply the display window (VOI LUT) of the files.

    Raises:
        VividMedError: no DICOM file, several series, differing sizes or directions, two slices at one position, a
            missing slice, or an unreadable file. Series are named by a hash, never by their identifiers.
    """
    files = [
        path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size and is_dicom(path)
    ]
    if not files:
        raise VividMedError(f"{folder}: the folder holds no DICOM file; give a folder with one DICOM series")
    datasets = [_read_dataset(path) for path in files]
    series = sorted({_hash(dataset.get("SeriesInstanceUID", "")) for dataset in datasets})
    if len(series) > 1:
        raise VividMedError(
            f"{folder}: the folder mixes {len(series)} series ({', '.join(series)}); keep one series in a folder"
        )
    if len(files) == 1:
        return read_dicom_file(files[0], voi_window=voi_window)
    name = f"{folder} (series {series[0]})"
    planes = [_plane(dataset) for dataset in datasets]
    for path, plane, dataset in zip(files, planes, datasets, strict=True):
        if plane is None:
            raise VividMedError(
                f"{path}: has no position, so the series cannot be sorted; remove or repair the file"
            )
        if (dataset.get("Rows"), dataset.get("Columns")) != (
            datasets[0].get("Rows"),
            datasets[0].get("Columns"),
        ):
            raise VividMedError(
                f"{name}: {path.name} differs in size from {files[0].name}; keep one series in a folder"
            )
    frames = [
        _pixels(dataset, path, voi_window=voi_window) for dataset, path in zip(datasets, files, strict=True)
    ]
    if any(frame.shape != frames[0].shape or frame.shape[1] != 1 for frame in frames):
        raise VividMedError(
            f"{name}: files hold different numbers of frames or channels; keep one series in a folder"
        )
    slices = [frame[:, 0] for frame in frames]
    return _stack(slices, planes, datasets[0].get("Modality"), name)  # type: ignore[arg-type]


def _stack(slices: list[np.ndarray], planes: list[_Plane], modality: str | None, source: str) -> MedicalImage:
    """Sort slices (C, H, W) by position and check that they form one regular stack."""
    order = sorted(range(len(planes)), key=lambda index: planes[index].distance)
    planes = [planes[index] for index in order]
    if not all(plane.parallel(planes[0]) for plane in planes):
        raise VividMedError(
            f"{source}: slices differ in direction or pixel spacing; split them into one series each"
        )
    gaps = np.diff([plane.distance for plane in planes])
    usual = float(np.median(gaps))
    if gaps.min() < _SAME_POSITION:
        raise VividMedError(
            f"{source}: several slices lie at one position; keep one time point or echo in a folder"
        )
    if np.abs(gaps - usual).max() > _GAP_TOLERANCE * usual:
        index = int(np.abs(gaps - usual).argmax())
        raise VividMedError(
            f"{source}: a slice is missing between slices {index + 1} and {index + 2} of {len(planes)} "
            f"({gaps[index]:.2f} mm apart instead of {usual:.2f} mm); add the file or export the series again"
        )
    array = np.stack([slices[index] for index in order], axis=1)
    return MedicalImage(array, _affine(planes), modality, source, oriented=True)


def _affine(planes: list[_Plane], thickness: float = 1.0) -> np.ndarray:
    """Voxel index (x, y, z) -> RAS+ mm, for planes sorted along their normal."""
    first, y_spacing, x_spacing = planes[0], *planes[0].spacing
    if len(planes) > 1:
        step = (planes[-1].position - first.position) / (len(planes) - 1)
    else:
        step = first.normal * thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = first.row * x_spacing, first.column * y_spacing, step
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def _read_dataset(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError) as error:
        raise unreadable(path, "DICOM file", error) from error


def _pixels(dataset: Dataset, path: Path, *, voi_window: bool) -> np.ndarray:
    """Pixels in modality units, (C, frames, H, W); MONOCHROME1 is inverted, so that more is always brighter."""
    if "PixelData" not in dataset:
        raise VividMedError(f"{path}: the DICOM file holds no image; give a file with pixel data")
    try:
        array = pixel_array(dataset)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = _to_eight_bits(apply_color_lut(array, dataset))
    except Exception as error:  # decoders raise whatever their codec raises
        remedy = "copy the file again, or install vividmed[dicom] for compressed files"
        raise unreadable(path, "DICOM image", error, remedy) from error
    colour = array.ndim >= 3 and array.shape[-1] == 3 and dataset.get("SamplesPerPixel", 1) == 3
    colour |= dataset.PhotometricInterpretation == "PALETTE COLOR"
    if colour:
        return np.moveaxis(array.reshape(-1, *array.shape[-3:]), -1, 0)
    array = array.reshape(-1, *array.shape[-2:])
    frames = np.stack([_rescale(frame, _function_group(dataset, i)) for i, frame in enumerate(array)])
    if voi_window:
        frames = apply_voi_lut(frames, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        frames = frames.max() - frames + frames.min()
    return frames[None]


def _rescale(frame: np.ndarray, group: Dataset) -> np.ndarray:
    """Stored values -> modality units. Integer results stay integers."""
    slope, intercept = float(group.get("RescaleSlope", 1)), float(group.get("RescaleIntercept", 0))
    if (slope, intercept) == (1.0, 0.0):
        return frame
    if slope.is_integer() and intercept.is_integer():
        return frame.astype(np.int32) * int(slope) + int(intercept)
    return frame.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _function_group(dataset: Dataset, frame: int) -> Any:
    """Attributes that hold for one frame: of the file, of all frames, of the frame, the last winning."""
    merged = Dataset()
    for keyword in (
        "RescaleSlope",
        "RescaleIntercept",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
    ):
        if dataset.get(keyword) is not None:
            setattr(merged, keyword, dataset.get(keyword))
    groups = list(dataset.get("SharedFunctionalGroupsSequence", []))
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence", [])
    groups += [per_frame[frame]] if frame < len(per_frame) else []
    for group in groups:
        for name in (
            "PixelValueTransformationSequence",
            "PlanePositionSequence",
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
        ):
            for item in group.get(name, []):
                merged.update(item)
    return merged


def _plane(dataset: Dataset, frame: int = 0) -> _Plane | None:
    """Where a frame lies; None where the file does not say."""
    group = _function_group(dataset, frame)
    position, orientation = group.get("ImagePositionPatient"), group.get("ImageOrientationPatient")
    spacing = _pixel_spacing(group)
    if (
        position is None
        or orientation is None
        or spacing is None
        or len(position) != 3
        or len(orientation) != 6
    ):
        return None
    row, column = np.asarray(orientation[:3], dtype=float), np.asarray(orientation[3:], dtype=float)
    if min(np.linalg.norm(row), np.linalg.norm(column)) < 0.5:
        return None
    return _Plane(np.asarray(position, dtype=float), row, column, spacing)


def _pixel_spacing(dataset: Any) -> tuple[float, float] | None:
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if spacing is None or len(spacing) != 2 or min(float(value) for value in spacing) <= 0:
        return None
    return float(spacing[0]), float(spacing[1])


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)


def _hash(identifier: str) -> str:
    return hashlib.sha256(str(identifier).encode()).hexdigest()[:8]
