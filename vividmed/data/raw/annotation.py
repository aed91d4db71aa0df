"""Where the masks of a case come from: label maps, files with one mask each, or code of an adapter."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from vividmed.data.raw.grids import to_grid
from vividmed.data.raw.images import read_original
from vividmed.data.raw.mask_patch import MaskPatch, Slices
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

Values = int | Iterable[int]
Reader = Callable[[Path], MedicalImage]

_LARGEST_LABEL = 65535


class Annotation(ABC):
    """A source of masks on the grid of a case's image.

    Attributes:
        targets: Names that were searched for. Those without a voxel are absent, unless they are in ``partial``.
        partial: Names of which an empty mask proves nothing, because not every case or not every instance was
            annotated.
        instances: Names whose connected components are separate instances.
    """

    partial: frozenset[str]
    instances: frozenset[str]

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]: ...

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Every file that is read."""

    @abstractmethod
    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        """Masks of the targets that have voxels, on the grid of ``image``; several of one target are instances.

        Raises:
            VividMedError: A file is unreadable, holds no labels, or lies on another grid.
        """


@dataclass(frozen=True)
class LabelMap(Annotation):
    """One file in which every voxel carries the number of its structure.

    Attributes:
        path: A file, or a folder with one DICOM series.
        labels: Target to the value, or values, that make it up. Targets may overlap.
        instances: Targets whose connected components are separate instances.
        by_value: Targets of which every value is an instance.
        partial: Targets of which an empty mask proves nothing.
        read: Reads the path instead of the generic reader; a module-level function.
        on_image_grid: Believe that the map lies on the grid of the image although its header says otherwise.
    """

    path: Path
    labels: Mapping[str, Values]
    instances: frozenset[str] = frozenset()
    by_value: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    read: Reader | None = None
    on_image_grid: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def files(self) -> Iterable[Path]:
        return (self.path,)

    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        array = read_labels(self.path, image, read=self.read, on_image_grid=self.on_image_grid)
        places = ndimage.find_objects(array)
        for target, values in self.labels.items():
            numbers = [values] if isinstance(values, int) else list(values)
            found = [v for v in numbers if 0 < v <= len(places) and places[v - 1] is not None]
            for group in [[v] for v in found] if target in self.by_value else [found]:
                if group:
                    box = _union([places[v - 1] for v in group])
                    inside = array[box] == group[0] if len(group) == 1 else np.isin(array[box], group)
                    yield MaskPatch.within(target, box, inside)


@dataclass(frozen=True)
class MaskFiles(Annotation):
    """One file a mask; non-zero is inside.

    Attributes:
        paths: Target to its file, or to the files of its instances. A target with no file was searched for and not
            found, unless it is in ``partial``.
        instances: Targets whose connected components are separate instances.
        partial: Targets of which an empty mask proves nothing.
        read: Reads a path instead of the generic reader; a module-level function.
        on_image_grid: Believe that the masks lie on the grid of the image although their headers say otherwise.
    """

    paths: Mapping[str, Path | tuple[Path, ...]]
    instances: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    read: Reader | None = None
    on_image_grid: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.paths)

    def files(self) -> Iterable[Path]:
        return (path for target in self.paths for path in self._of(target))

    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        for target in self.paths:
            for path in self._of(target):
                array = read_labels(path, image, read=self.read, on_image_grid=self.on_image_grid)
                patch = MaskPatch.from_mask(target, array != 0)
                if patch is not None:
                    yield patch

    def _of(self, target: str) -> tuple[Path, ...]:
        paths = self.paths[target]
        return (paths,) if isinstance(paths, Path) else paths


@dataclass(frozen=True)
class DrawnMasks(Annotation):
    """Masks that code of an adapter makes, for annotations in a form of their own.

    Attributes:
        names: Targets that were searched for.
        draw: Takes the image and gives pairs of target and (D, H, W) array on its grid, non-zero inside; picklable:
            a module-level function or a ``functools.partial`` of one.
        sources: Files it reads.
        instances: Targets whose connected components are separate instances.
        partial: Targets of which an empty mask proves nothing.
    """

    names: tuple[str, ...]
    draw: Callable[[MedicalImage], Iterable[tuple[str, np.ndarray]]]
    sources: tuple[Path, ...]
    instances: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()

    @property
    def targets(self) -> tuple[str, ...]:
        return self.names

    def files(self) -> Iterable[Path]:
        return self.sources

    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        for target, mask in self.draw(image):
            if mask.shape != image.size:
                raise VividMedError(
                    f"{image.source}: the mask of {target!r} has the shape {mask.shape}, not {image.size}"
                )
            patch = MaskPatch.from_mask(target, mask)
            if patch is not None:
                yield patch


def read_labels(
    path: Path, image: MedicalImage, *, read: Reader | None = None, on_image_grid: bool = False
) -> np.ndarray:
    """Read whole-number labels onto the grid of an image.

    Files on the same lattice with axes in another order or direction, or of another extent, are turned, cut and
    filled with zeros. Nothing is interpolated.

    Args:
        path: Of the label map or mask.
        image: Whose grid is wanted.
        read: Reads the path instead of the generic reader.
        on_image_grid: Believe that shape and place agree although the header says otherwise.

    Returns:
        (D, H, W) array of an integer type.

    Raises:
        VividMedError: Colours or fractions instead of labels, or another grid.
    """
    labels = read_original(path, read=read)
    array = labels.array
    if array.shape[0] == 3 and not (
        np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2])
    ):
        raise VividMedError(f"{path}: a colour image is no label map; give a file with one number a voxel")
    array = array[0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise VividMedError(f"{path}: holds fractions or NaN, which are no labels; give whole numbers")
        array = array.astype(np.int32)
    if array.max() > _LARGEST_LABEL or array.min() < 0:
        raise VividMedError(
            f"{path}: labels run from {array.min()} to {array.max()}; a label map holds 0 to {_LARGEST_LABEL}"
        )
    array = array.astype(np.int32, copy=False)
    if on_image_grid or not (labels.oriented and image.oriented):
        if array.shape != image.size:
            raise VividMedError(
                f"{path}: has the size {array.shape}, its image {image.size}; they must be the same"
            )
        return array
    return to_grid(array, labels, image)


def _union(places: list[Slices]) -> Slices:
    low = [min(p[i].start for p in places) for i in range(3)]
    high = [max(p[i].stop for p in places) for i in range(3)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
