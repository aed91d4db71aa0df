"""Where the masks of a case come from: label maps, files with one mask each, or an adapter's own code."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
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
_SHOWN_VALUES = 8


class Annotation(ABC):
    """A source of masks on the grid of a case's image.

    Attributes:
        targets: names that were searched for. Those without a voxel are absent, unless they are in ``partial``.
        partial: names for which an empty mask proves nothing, because not every case or not every instance was
            annotated.
        instances: names whose connected components are separate instances.
    """

    partial: frozenset[str]
    instances: frozenset[str]

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]: ...

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """List every file that is read."""

    @abstractmethod
    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        """Yield masks of the targets that have voxels, on the grid of ``image``; several masks of one target are instances.

        Raises:
            VividMedError: A file is unreadable, does not contain labels, or lies on another grid.
        """


@dataclass(frozen=True)
class LabelMap(Annotation):
    """One file in which every voxel carries the number of its structure.

    A value that neither ``labels`` nor ``ignored`` names is an error. Otherwise an unexpected value, such as 255 for 1,
    would make its target absent.

    Attributes:
        path: a file, or a folder with one DICOM series.
        labels: target to the value, or values, that make it up. Targets may overlap.
        ignored: further values that occur in the data set and are not used; 0 is background.
        instances: targets whose connected components are separate instances.
        by_value: targets of which every value is an instance.
        partial: targets for which an empty mask proves nothing.
        read: function of a module that reads the path instead of the generic reader.
        on_image_grid: whether the map lies on the grid of the image although its header says otherwise.
        covers_image: whether a map of another size than the image is an error. Otherwise it may be a part of the image's
            lattice, or exceed it, with background elsewhere.
        listed_in: place that names the values, for errors about them; an adapter by default.
    """

    path: Path
    labels: Mapping[str, Values]
    ignored: Values = ()
    instances: frozenset[str] = frozenset()
    by_value: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    read: Reader | None = None
    on_image_grid: bool = False
    covers_image: bool = False
    listed_in: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def files(self) -> Iterable[Path]:
        return (self.path,)

    def masks(self, image: MedicalImage) -> Iterator[MaskPatch]:
        array = read_labels(
            self.path,
            image,
            read=self.read,
            on_image_grid=self.on_image_grid,
            covers_image=self.covers_image,
        )
        places = ndimage.find_objects(array)
        self._check_values(value for value, place in enumerate(places, 1) if place is not None)
        for target, values in self.labels.items():
            found = [v for v in _listed(values) if 0 < v <= len(places) and places[v - 1] is not None]
            for group in [[v] for v in found] if target in self.by_value else [found]:
                if group:
                    box = _union([places[v - 1] for v in group])
                    inside = array[box] == group[0] if len(group) == 1 else np.isin(array[box], group)
                    yield MaskPatch.within(target, box, inside)

    def _check_values(self, found: Iterable[int]) -> None:
        known = {value for values in (*self.labels.values(), self.ignored) for value in _listed(values)}
        check_known(found, known, self.path, listed_in=self.listed_in)


@dataclass(frozen=True)
class MaskFiles(Annotation):
    """One file per mask; non-zero is inside.

    Attributes:
        paths: target to its file, or to the files of its instances. A target without a file was searched for and not
            found, unless it is in ``partial``.
        instances: targets whose connected components are separate instances.
        partial: targets for which an empty mask proves nothing.
        read: function of a module that reads a path instead of the generic reader.
        on_image_grid: whether the masks lie on the grid of the image although their headers say otherwise.
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
    """Masks that an adapter's own code draws, for annotations in any other form.

    Attributes:
        names: targets that were searched for.
        draw: takes the image and yields pairs of target and (D, H, W) array on its grid, non-zero inside. It must be
            picklable: a function of a module or a ``functools.partial`` of one.
        sources: files that it reads.
        instances: targets whose connected components are separate instances.
        partial: targets for which an empty mask proves nothing.
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
                    f"{image.source}: the mask of {target!r} has the shape {mask.shape}, but the image has {image.size}; "
                    "draw masks on the grid of the image"
                )
            patch = MaskPatch.from_mask(target, mask)
            if patch is not None:
                yield patch


def read_labels(
    path: Path,
    image: MedicalImage,
    *,
    read: Reader | None = None,
    on_image_grid: bool = False,
    covers_image: bool = False,
) -> np.ndarray:
    """Read whole-number labels onto the grid of an image.

    Files on the same lattice whose axes have another order, direction or extent are turned, cropped and padded with
    zeros. Nothing is interpolated.

    Args:
        path: label map or mask.
        image: image with the wanted grid.
        read: function that reads the path instead of the generic reader.
        on_image_grid: whether shape and place agree although the header says otherwise.
        covers_image: whether another size than that of the image is an error.

    Returns:
        (D, H, W) array of an integer type.

    Raises:
        VividMedError: The file contains colours or fractions instead of labels, or lies on another grid.
    """
    labels = read_original(path, read=read)
    array = labels.array
    if array.shape[0] == 3 and not (
        np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2])
    ):
        raise VividMedError(
            f"{path}: a colour image cannot be a label map; give a file with one integer per voxel"
        )
    array = array[0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise VividMedError(
                f"{path}: contains fractions or NaN, which cannot be labels; give whole numbers"
            )
        array = array.astype(np.int32)
    if array.max() > _LARGEST_LABEL or array.min() < 0:
        raise VividMedError(
            f"{path}: labels run from {array.min()} to {array.max()}; a label map contains values from 0 to {_LARGEST_LABEL}"
        )
    array = array.astype(np.int32, copy=False)
    if on_image_grid or not (labels.oriented and image.oriented):
        if array.shape != image.size:
            raise VividMedError(
                f"{path}: has the size {array.shape}, but its image has {image.size}; both must have the same size"
            )
        return array
    return to_grid(array, labels, image, whole=covers_image)


def check_known(found: Iterable[int], known: Container[int], path: Path, *, listed_in: str = "") -> None:
    """Check that a label map contains known values only.

    Args:
        found: values that occur; 0 is background and always known.
        known: values that belong to a target or are ignored on purpose.
        path: of the label map.
        listed_in: place that names the values; an adapter by default.

    Raises:
        VividMedError: Naming the values that are not known.
    """
    unknown = sorted(value for value in map(int, found) if value and value not in known)
    if unknown:
        shown = ", ".join(map(str, unknown[:_SHOWN_VALUES])) + (
            ", ..." if len(unknown) > _SHOWN_VALUES else ""
        )
        remedy = (
            f"name them in {listed_in}"
            if listed_in
            else "add them to the adapter's labels or declare them as ignored"
        )
        raise VividMedError(f"{path}: contains the label values {shown}, which belong to no target; {remedy}")


def _listed(values: Values) -> Iterable[int]:
    return (values,) if isinstance(values, int) else values


def _union(places: list[Slices]) -> Slices:
    low = [min(p[i].start for p in places) for i in range(3)]
    high = [max(p[i].stop for p in places) for i in range(3)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
