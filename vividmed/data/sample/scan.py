"""Reads volumes with labels on one grid, orients and resamples them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
import torch
from scipy import ndimage
from torch.nn import functional as F

from vividmed.data.sample.targets import BODY, PARTS, Labels
from vividmed.errors import VividMedError
from vividmed.processing.dicom import read_contours
from vividmed.processing.reading import read_image
from vividmed.triples import Triple

Spacing = tuple[float, float, float]

_AIR_HU = -400
_ORIENTATION = ("L", "P", "S")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A volume and the labels drawn on it.

    Arrays are (z, y, x) with x running to the patient's left, y to the back and z to the head, as in an axial DICOM
    series: ``array[z]`` looks as a radiologist sees it, the patient's right on the left.

    Attributes:
        array: (D, H, W) intensities; Hounsfield units for CT.
        affine: 4 x 4, voxel index (x, y, z) to RAS+ millimetres; no rotation apart from the axis directions.
        labels: (D, H, W) label map, zero where nothing is labelled.
        targets: label of each target; see :meth:`mask` for those that contain others.
    """

    array: np.ndarray
    affine: np.ndarray
    labels: np.ndarray
    targets: Mapping[str, int]

    @property
    def spacing(self) -> Spacing:
        """Millimetres per voxel along (z, y, x)."""
        x, y, z = np.abs(np.diag(self.affine)[:3])
        return float(z), float(y), float(x)

    def mask(self, target: str) -> np.ndarray:
        """(D, H, W) bool mask of a target; empty if it is not in this part of the body.

        The body contains everything that is labelled, and bone the bones that are targets of their own.
        """
        if target == BODY:
            return self.labels > 0
        names = [target, *(part for part in PARTS.get(target, ()) if part in self.targets)]
        return np.logical_or.reduce([self.labels == self.targets[name] for name in names])

    @cached_property
    def body(self) -> np.ndarray:
        """(D, H, W) bool mask of the patient, without the table and the surrounding air (lungs are left out)."""
        level = _AIR_HU if self.array.min() < _AIR_HU else 0.08 * np.percentile(self.array, 99)
        parts, _ = ndimage.label(ndimage.binary_opening(self.array > level))
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return parts == sizes.argmax()

    def with_labels(self, masks: Mapping[str, np.ndarray]) -> "Scan":
        """The scan with more targets, each (D, H, W) bool; what has a label already, or gets one first, keeps it."""
        labels, targets = self.labels.copy(), dict(self.targets)
        for target, mask in masks.items():
            targets[target] = len(targets) + 1
            labels[mask & (labels == 0)] = targets[target]
        return replace(self, labels=labels, targets=targets)

    def crop(self, low: Triple, high: Triple) -> "Scan":
        """Half-open sub-volume in voxels (z, y, x), with its own affine."""
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ [*low[::-1], 1])[:3]
        return Scan(array=self.array[window], affine=affine, labels=self.labels[window], targets=self.targets)

    def resampled(self, spacing: Spacing) -> "Scan":
        """The scan on a grid of about the given spacing (z, y, x) in millimetres over the same extent.

        Axes that become coarser are averaged, axes that become finer interpolated linearly; labels take the
        nearest voxel.
        """
        old = self.array.shape
        new = tuple(max(1, round(n * s / t)) for n, s, t in zip(old, self.spacing, spacing, strict=True))
        image = torch.from_numpy(self.array.astype(np.float32))[None, None]
        coarse = tuple(min(a, b) for a, b in zip(old, new, strict=True))
        image = F.interpolate(F.interpolate(image, coarse, mode="area"), new, mode="trilinear")
        labels = torch.from_numpy(self.labels.astype(np.float32))[None, None]
        labels = F.interpolate(labels, new, mode="nearest-exact")
        scale = np.array([a / b for a, b in zip(old, new, strict=True)])[::-1]
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * scale
        affine[:3, 3] = (self.affine @ [*(scale - 1) / 2, 1])[:3]
        return Scan(
            array=image[0, 0].numpy(),
            affine=affine,
            labels=labels[0, 0].numpy().astype(np.int16),
            targets=self.targets,
        )


def read_scan(image: list[Path], labels: Mapping[Path, Labels]) -> Scan:
    """Read a volume and what is labelled on it.

    Args:
        image: one NIfTI or NRRD file, or all files of a DICOM series.
        labels: for each NIfTI or NRRD label map, target names and the values that form a target; for each DICOM
            structure set (``.dcm``), target names and the regions that form one. A map covers the grid of the image or
            a part of it. Where labels overlap, the later one wins.

    Raises:
        VividMedError: labels do not lie on the grid of the image.
    """
    array, affine = _read(image)
    merged = np.zeros(array.shape, np.int16)
    targets: dict[str, int] = {}
    for path, values in labels.items():
        for target in values:
            targets[target] = len(targets) + 1
        numbers = {target: targets[target] for target in values}
        found, part_affine = (_contours if path.suffix == ".dcm" else _label_map)(path, values, numbers)
        place = _place(found.shape, part_affine, array.shape, affine)
        if place is None:
            raise VividMedError(
                f"{path.name}: not on the grid of {image[0].name}; the archive is not the expected one"
            )
        merged[place] = np.where(found > 0, found, merged[place])
    return Scan(array=array, affine=affine, labels=merged, targets=targets)


def _label_map(path: Path, values: Labels, numbers: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) numbers of the targets of a label map, and its affine."""
    part, affine = _read([path])
    table = np.zeros(int(part.max()) + 1, np.int16)
    for target, of_target in values.items():
        table[[value for value in of_target if isinstance(value, int) and value < table.size]] = numbers[
            target
        ]
    return table[part], affine


def _contours(path: Path, values: Labels, numbers: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) numbers of the targets of a structure set in the folder of its series, and the affine."""
    image = read_image(path.parent)
    masks = read_contours(path, image)
    found = np.zeros(image.size, np.int16)
    for target, regions in values.items():
        for region in regions:
            found[masks[str(region)]] = numbers[target]
    return _oriented(found.transpose(2, 1, 0), image.affine)


def _place(
    part: tuple[int, ...], part_affine: np.ndarray, whole: tuple[int, ...], affine: np.ndarray
) -> tuple[slice, ...] | None:
    """Where a grid lies inside another one of the same spacing and directions, or None."""
    offset = (np.linalg.inv(affine) @ part_affine)[:3, 3][::-1]
    start = np.rint(offset).astype(int)
    same = np.allclose(part_affine[:3, :3], affine[:3, :3], atol=1e-3) and np.allclose(
        offset, start, atol=0.05
    )
    if not same or (start < 0).any() or (start + part > whole).any():
        return None
    return tuple(slice(a, a + n) for a, n in zip(start, part, strict=True))


def _read(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) array and affine in the orientation of :class:`Scan`."""
    if len(paths) == 1 and paths[0].name.endswith(".nii.gz"):
        nifti = nib.Nifti1Image.from_filename(paths[0])
        array, affine = np.asanyarray(nifti.dataobj), nifti.affine
    else:
        array, affine = _read_itk(paths)
    return _oriented(array, affine)


def _oriented(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) array and affine in the orientation of :class:`Scan`, from an array in (x, y, z) order."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(_ORIENTATION)
    )
    turned = nib.orientations.apply_orientation(array, turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
    return np.ascontiguousarray(turned.transpose(2, 1, 0)), affine


def _read_itk(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Array in (x, y, z) order and affine to RAS+ of an NRRD file or a DICOM series."""
    if len(paths) == 1:
        image = SimpleITK.ReadImage(str(paths[0]))
    else:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # ITK counts millimetres towards left and back
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), affine
