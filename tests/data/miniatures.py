"""Miniatures of original data sets: small files in the real layout, of which the right result is known in millimetres.

A :class:`Phantom` is a bright body with box-shaped structures. It is written in any format and orientation; after
preparation each structure must lie at the same place in the patient and have the same volume.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from datasets import DatasetDict, load_dataset
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from vividmed.data.adapters import get_adapter
from vividmed.data.masks import unpack_mask
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.prepare import PreparationResult, prepare_dataset

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A body with one box-shaped structure for each label value.

    Attributes:
        values: Labels that occur.
        size: Voxels towards right, anterior, superior.
        spacing: Millimetres a voxel in the same order.
        axcodes: Directions of the stored axes (i, j, k), as nibabel names them.
        background: Intensity around the body.
        body: Mean intensity of the body.
        seed: Of its noise.
        sides: Pairs of a left and a right structure, each at its side of the body; others lie anywhere.
    """

    values: tuple[int, ...] = (1,)
    size: Triple = (32, 28, 16)
    spacing: tuple[float, float, float] = (2.0, 2.0, 5.0)
    axcodes: str = "LPS"
    background: int = -1000
    body: int = 40
    seed: int = 0
    sides: tuple[tuple[int, int], ...] = ()

    @property
    def affine(self) -> np.ndarray:
        """Of the lattice in RAS order."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = (-30.0, -25.0, 100.0)
        return affine

    def structures(self) -> dict[int, tuple[Triple, Triple]]:
        """Label value to low and high corner (half-open) on the lattice in RAS order; none touch."""
        cells = [
            (x, y, z)
            for z in range(2, self.size[2] - 3, 4)
            for y in range(4, self.size[1] - 6, 5)
            for x in range(4, self.size[0] - 7, 6)
        ]
        if len(self.values) > len(cells):
            raise ValueError(
                f"{len(self.values)} structures do not fit into {self.size}; make the phantom larger"
            )
        places: dict[int, Triple] = {}
        for value, outermost in (
            (v, side) for pair in self.sides for v, side in zip(pair, (min, max), strict=True)
        ):
            places[value] = outermost(cells)
            cells.remove(places[value])
        others = [value for value in self.values if value not in places]
        places |= {value: cells[i * len(cells) // len(others)] for i, value in enumerate(others)}
        return {
            value: ((x, y, z), (x + 3 + value % 3, y + 3, z + 2))
            for value, (x, y, z) in ((value, places[value]) for value in self.values)
        }

    def image(self) -> np.ndarray:
        """Intensities on the lattice in RAS order."""
        noise = np.random.default_rng(self.seed).normal(0, 10, self.size)
        array = np.full(self.size, float(self.background))
        inside = tuple(slice(2, n - 2) if n > 8 else slice(0, n) for n in self.size)
        array[inside] = self.body + noise[inside]
        for value, (low, high) in self.structures().items():
            array[_slices(low, high)] += 100 + value % 7
        return np.rint(array).astype(np.int16)

    def labels(self, mapping: Mapping[int, int] | None = None) -> np.ndarray:
        """Label map on the lattice in RAS order; ``mapping`` gives other values, and leaves out those it lacks."""
        array = np.zeros(self.size, np.int16)
        for value, (low, high) in self.structures().items():
            array[_slices(low, high)] = value if mapping is None else mapping.get(value, 0)
        return array

    def centre_mm(self, value: int) -> np.ndarray:
        """Centre of a structure in RAS+ mm."""
        low, high = self.structures()[value]
        return (self.affine @ [*((np.array(low) + np.array(high) - 1) / 2), 1])[:3]

    def volume_mm3(self, value: int) -> float:
        low, high = self.structures()[value]
        return float(np.prod(np.array(high) - low) * np.prod(self.spacing))

    def write_image(self, path: Path) -> Path:
        """Write the image; a path without an ending becomes a DICOM series."""
        return self._write(path, self.image())

    def write_labels(self, path: Path, mapping: Mapping[int, int] | None = None) -> Path:
        return self._write(path, self.labels(mapping))

    def write_mask(self, path: Path, *values: int) -> Path:
        """Write a mask of some structures, with the value 1."""
        return self._write(path, self.labels(dict.fromkeys(values, 1)))

    def _write(self, path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        turned = nib.as_closest_canonical(nib.Nifti1Image(array, self.affine))
        codes = nib.orientations.axcodes2ornt(tuple(self.axcodes))
        turned = turned.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(turned.affine), codes)
        )
        if path.name.endswith((".nii", ".nii.gz")):
            turned.set_sform(turned.affine, 1)
            turned.set_qform(turned.affine, 1)
            nib.save(turned, path)
        elif path.suffix:
            SimpleITK.WriteImage(_to_itk(np.asarray(turned.dataobj), turned.affine), str(path))
        else:
            write_dicom_series(path, np.asarray(turned.dataobj), turned.affine)
        return path


def write_channels(path: Path, phantoms: Sequence[Phantom]) -> Path:
    """One 4D NIfTI file with the images of several phantoms of one lattice along the last axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.stack([phantom.image() for phantom in phantoms], axis=-1)
    nib.save(nib.Nifti1Image(stack, phantoms[0].affine), path)
    return path


def write_dicom_series(folder: Path, array: np.ndarray, affine: np.ndarray, **fields: Any) -> Path:
    """Write an (i, j, k) array whose last axis runs over the slices as a CT series.

    Args:
        folder: Where the files go.
        array: In HU.
        affine: Index (i, j, k) to RAS+ mm.
        fields: Further DICOM fields by keyword.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    series = generate_uid(entropy_srcs=[folder.name])
    for index in range(array.shape[2]):
        dataset = _dicom(array[:, :, index].T + 1024, "CT", series, index)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        dataset.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        dataset.ImagePositionPatient = [*(lps @ [0, 0, index, 1])[:3]]
        for keyword, value in fields.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
    return folder


def write_radiograph(path: Path, array: np.ndarray, **fields: Any) -> Path:
    """Write an (H, W) array as a DICOM radiograph.

    Args:
        path: Of the file.
        array: Values from 0 to 65535.
        fields: Further DICOM fields by keyword.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dicom(array, "CR", generate_uid(entropy_srcs=[path.name]), 0)
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_picture(path: Path, array: np.ndarray) -> Path:
    """Write an (H, W) or (H, W, 3) uint8 array as PNG, JPEG or TIFF, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def picture(size: tuple[int, int] = (48, 40), seed: int = 0) -> np.ndarray:
    """(H, W) uint8 grey picture with no black rim, so that nothing is cropped."""
    return np.random.default_rng(seed).integers(20, 236, size).astype(np.uint8)


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """Write rows with the same keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def truncate(path: Path) -> Path:
    """Cut a file in half, as an interrupted download leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@dataclass(frozen=True)
class Prepared:
    """A prepared miniature, loaded by plain ``load_dataset``."""

    result: PreparationResult
    splits: DatasetDict

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Row by id without the name of the data set."""
        return {row["id"].partition(":")[2]: row for rows in self.splits.values() for row in rows}

    @property
    def split_of(self) -> dict[str, str]:
        """Split by row id."""
        return {row["id"].partition(":")[2]: split for split, rows in self.splits.items() for row in rows}


def prepare_miniature(
    name: str, origin: Path, tmp_path: Path, *, processing: Processing | None = None
) -> Prepared:
    """Prepare a miniature by its adapter and load the result.

    Args:
        name: Of the adapter.
        origin: Where the miniature lies.
        tmp_path: Where output and cache go.
        processing: Choices about the images.
    """
    output = tmp_path / "prepared" / name
    result = prepare_dataset(get_adapter(name), origin, output, processing=processing)
    return Prepared(result, load_dataset(str(output), cache_dir=str(tmp_path / "cache")))


def image_of(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """(D, H, W[, 3]) array of a row's only image, and its affine (index (x, y, z) to RAS+ mm; None in 2D)."""
    if row["volumes"]:
        (volume,) = row["volumes"]
        return np.asarray(volume.dataobj).T, volume.affine
    (image,) = row["images"]
    return np.asarray(image)[None], None


def masks_of(row: Mapping[str, Any], target: str) -> list[np.ndarray]:
    """(D, H, W) masks of the instances of a target."""
    shape = image_of(row)[0].shape[:3]
    return [unpack_mask(mask, shape) for mask in row["masks"] if mask["target"] == target]


def centre_mm(row: Mapping[str, Any], target: str) -> np.ndarray:
    """Centre of a target in RAS+ mm."""
    _, affine = image_of(row)
    mask = np.any(masks_of(row, target), axis=0)
    index = np.argwhere(mask).mean(axis=0)[::-1]
    return (affine @ [*index, 1])[:3]


def volume_mm3(row: Mapping[str, Any], target: str) -> float:
    _, affine = image_of(row)
    return float(np.any(masks_of(row, target), axis=0).sum() * abs(np.linalg.det(affine[:3, :3])))


def assert_row_shows(
    row: Mapping[str, Any],
    phantom: Phantom,
    present: Mapping[str, int | tuple[int, ...]],
    absent: Iterable[str] = (),
    atol_mm: float = 1e-3,
) -> None:
    """A row holds exactly these targets, each where the phantom has it.

    Args:
        row: Loaded.
        phantom: It was made from.
        present: Target to the label value, or values, that it consists of.
        absent: Targets that were searched for and not found.
        atol_mm: How far centres may be off.
    """
    assert set(row["targets"]) == set(present)
    assert set(row["absent"]) == set(absent)
    array, affine = image_of(row)
    lattice = nib.aff2axcodes(affine)
    assert set(lattice) == {"R", "A", "S"}, f"axes {lattice} of the prepared volume are not canonical"
    assert array.dtype == np.uint8
    assert sorted(np.linalg.norm(affine[:3, :3], axis=0)) == sorted(np.float32(phantom.spacing).astype(float))
    for target, values in present.items():
        parts = (values,) if isinstance(values, int) else values
        volumes = np.array([phantom.volume_mm3(value) for value in parts])
        centre = volumes @ np.array([phantom.centre_mm(value) for value in parts]) / volumes.sum()
        np.testing.assert_allclose(centre_mm(row, target), centre, atol=atol_mm, err_msg=target)
        np.testing.assert_allclose(volume_mm3(row, target), volumes.sum(), rtol=1e-4, err_msg=target)


def _slices(low: Sequence[int], high: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _to_itk(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _dicom(pixels: np.ndarray, modality: str, series: str, index: int) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.SeriesInstanceUID, dataset.Modality, dataset.InstanceNumber = series, modality, index + 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.ascontiguousarray(pixels.astype("<u2")).tobytes()
    return dataset
