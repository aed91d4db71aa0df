"""Cuts slices and sub-volumes from a scan, with their masks."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vividmed.data.sample.measures import side_of
from vividmed.data.sample.scan import Scan
from vividmed.data.sample.sources import VolumeSource, Window
from vividmed.data.sample.targets import BODY, LESIONS, UNREPORTED, enumerate_names

CLEARLY_VISIBLE = 0.3
"""Smallest share of a target's largest cross-section (2D) or volume (3D) at which it counts as present."""

_MIN_VOXELS = 30
_MARGIN_MM = 12.0
_LEAST_AREA = 0.5
_HU_RANGE = (-1024, 1500)
_AXIS = {"axial": 0, "coronal": 1, "sagittal": 2}


@dataclass(frozen=True)
class _Fields:
    """Fields of view along one axis.

    Attributes:
        chance: how often the axis is cut.
        shares: smallest and largest share that is left of it.
    """

    chance: float
    shares: tuple[float, float]

    def draw(self, random: np.random.Generator, size: int) -> tuple[int, int]:
        """A half-open range of the axis."""
        if self.chance < 1 and random.random() >= self.chance:
            return 0, size
        low, high = self.shares
        length = max(1, round(size * (low if low == high else random.uniform(low, high))))
        start = int(random.integers(0, size - length + 1))
        return start, start + length


_WHOLE = _Fields(0.3, (0.95, 0.95))
_VARIED = _Fields(0.6, (0.8, 1.0))
_PART = _Fields(1, (0.4, 0.6))


@dataclass(frozen=True, kw_only=True)
class View:
    """One image of the sample and what is known about it.

    Attributes:
        name: Unique name.
        patient: Key of the patient.
        modality: modality as in the answer.
        source: package, file, and how the image was made from it.
        licence: licence of the package.
        image: (H, W) or (H, W, 3) uint8 for a 2D image as displayed, or (D, H, W) int16 for a volume.
        affine: 4 x 4 of a volume, voxel index (x, y, z) to RAS+ mm; None for a 2D image.
        plane: plane or radiographic view of a 2D image; None for volumes and if unknown.
        masks: (D, H, W) bool mask of each present target; D = 1 for a 2D image.
        absent: targets labelled in this scan that have no voxel here. Barely visible targets are neither present nor
            absent.
        sides: ``left`` or ``right`` of the patient for each present target whose side is certain.
        whole: Whether the image shows about the whole field of view, and not only a part of the body's cross-section.
        use: what it is for: ``questions`` about modality, plane and presence, ``locations`` and reports, or ``both``.
    """

    name: str
    patient: str
    modality: str
    source: str
    licence: str
    image: np.ndarray
    affine: np.ndarray | None = None
    plane: str | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    sides: dict[str, str] = field(default_factory=dict)
    whole: bool = True
    use: Literal["questions", "locations", "both"] = "both"

    @property
    def is_volume(self) -> bool:
        """Whether the image is three-dimensional."""
        return self.affine is not None

    @property
    def reportable(self) -> dict[str, np.ndarray]:
        """The masks that a report or a question about findings may name."""
        return {target: mask for target, mask in self.masks.items() if target not in UNREPORTED}


def generator(name: str) -> np.random.Generator:
    """Generator that depends on the name only."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def to_grey(array: np.ndarray, window: Window | None) -> np.ndarray:
    """Scale intensities to uint8, by a window or by the percentiles 0.5 and 99.5."""
    low, high = window or np.percentile(array, (0.5, 99.5))
    scaled = (array.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def slices(source: VolumeSource, scan: Scan) -> Iterator[View]:
    """Axial, coronal and sagittal slices with a varying field of view.

    They are displayed by radiological convention: the patient's right on the left and the front up; on coronal and
    sagittal slices the head up, and on sagittal slices the front on the left. Slices that are only asked about have fields of
    view that vary more.
    """
    scan = _to_body(scan.resampled((source.slice_spacing,) * 3))
    for plane, count in source.slices.items():
        axis = _AXIS[plane]
        largest = _largest_sections(scan, axis)
        asked = source.asked_slices.get(plane, 0)
        for number, position in enumerate(_positions(scan, axis, count)):
            name = f"{source.name}-{plane}-{number:02d}"
            fields = _PART if number % 3 == 2 else _WHOLE
            view = _slice(source, scan, plane, position, number, name=name, fields=fields, largest=largest)
            yield replace(view, use="locations") if asked else view
        for number, position in enumerate(_positions(scan, axis, asked)):
            name = f"{source.name}-{plane}-asked-{number:02d}"
            view = _slice(source, scan, plane, position, number, name=name, fields=_VARIED, largest=largest)
            yield replace(view, use="questions")


def _slice(
    source: VolumeSource,
    scan: Scan,
    plane: str,
    position: int,
    number: int,
    *,
    name: str,
    fields: "_Fields",
    largest: Mapping[str, int],
) -> View:
    """The slice at a position along the plane's axis; its number decides on the window."""
    axis = _AXIS[plane]
    random = generator(name)
    low, high = [0, 0, 0], list(scan.array.shape)
    low[axis], high[axis] = position, position + 1
    for other in (i for i in range(3) if i != axis):
        low[other], high[other] = fields.draw(random, scan.array.shape[other])
    part = scan.crop((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    window = source.windows[number % len(source.windows)] if source.windows else None
    image = _display(to_grey(part.array, window), axis)[0]
    masks, absent = _judge(part, largest)
    whole = fields is not _PART
    view = View(
        name=name,
        patient=source.name,
        modality=source.modality,
        source=describe_source(source, f"{plane} slice"),
        licence=source.archive.licence,
        image=np.ascontiguousarray(image),
        plane=plane,
        masks={target: _display(mask, axis) for target, mask in masks.items()},
        absent=absent,
        whole=whole,
    )
    names_sides = source.laterality and plane != "sagittal" and whole
    return replace(view, sides=_sides(view.masks)) if names_sides else view


def volumes(source: VolumeSource, scan: Scan) -> Iterator[View]:
    """Sub-volumes at moderate resolution with true spacing and affine; the slice axis is the head-foot axis."""
    scan = _to_body(scan.resampled(source.volume_spacing))
    largest = {target: int(scan.mask(target).sum()) for target in scan.targets}
    depth = min(scan.array.shape[0], round(source.depth / scan.spacing[0]))
    for number, start in enumerate(_spread(0, scan.array.shape[0] - depth + 1, source.volumes)):
        name = f"{source.name}-volume-{number:02d}"
        random = generator(name)
        low, high = [start, 0, 0], [start + depth, *scan.array.shape[1:]]
        whole = number % 2 == 0
        if not whole:
            low[2], high[2] = _PART.draw(random, scan.array.shape[2])
        part = scan.crop((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        masks, absent = _judge(part, largest)
        array = np.clip(part.array, *_HU_RANGE) if source.modality == "CT" else part.array
        yield View(
            name=name,
            patient=source.name,
            modality=source.modality,
            source=describe_source(source, "sub-volume"),
            licence=source.archive.licence,
            image=np.rint(array).astype(np.int16),
            affine=part.affine,
            masks=masks,
            absent=absent,
            sides=_sides(masks) if source.laterality and whole else {},
            whole=whole,
        )


def describe_source(source: VolumeSource, what: str) -> str:
    """Package, file, and how an image was made from it."""
    by_rule = ""
    if source.modality == "CT":
        by_rule = f", {enumerate_names([*source.by_rule, BODY])} labelled by rule"
    return f"{source.archive}: {source.image}, {what}{by_rule}"


def _to_body(scan: Scan) -> Scan:
    """Crop the scan to the patient and a margin."""
    low, high = [0, 0, 0], list(scan.array.shape)
    for axis in (1, 2):
        inside = np.flatnonzero(scan.body.any(axis=tuple(i for i in range(3) if i != axis)))
        margin = round(_MARGIN_MM / scan.spacing[axis])
        low[axis] = max(0, int(inside[0]) - margin)
        high[axis] = min(high[axis], int(inside[-1]) + 1 + margin)
    return scan.crop((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _spread(low: int, high: int, count: int) -> list[int]:
    """``count`` positions in the half-open range, evenly spread and away from its ends."""
    return [int(low + (high - low) * (i + 0.5) / count) for i in range(count)]


def _positions(scan: Scan, axis: int, count: int) -> list[int]:
    """Slice positions: spread over the patient; if a lesion is labelled, half of them over the lesion."""
    others = tuple(i for i in range(3) if i != axis)
    area = scan.body.mean(axis=others)
    inside = np.flatnonzero(area > _LEAST_AREA * area.max())
    lesions = [
        np.flatnonzero(scan.mask(target).any(axis=others)) for target in scan.targets if target in LESIONS
    ]
    of_lesion = count // 2 if lesions else 0
    positions = _spread(int(inside[0]), int(inside[-1]) + 1, count - of_lesion)
    for lesion in lesions:
        positions += _spread(int(lesion[0]), int(lesion[-1]) + 1, of_lesion // len(lesions))
    return positions


def _display(array: np.ndarray, axis: int) -> np.ndarray:
    """(1, H, W) slice as displayed, from a (z, y, x) array of one voxel along ``axis``."""
    image = np.moveaxis(array, axis, 0)
    return image if axis == 0 else image[:, ::-1]


def _largest_sections(scan: Scan, axis: int) -> dict[str, int]:
    """Pixels of the largest cross-section of every target."""
    others = tuple(i for i in range(3) if i != axis)
    return {target: int(scan.mask(target).sum(axis=others).max()) for target in scan.targets}


def _judge(part: Scan, largest: Mapping[str, int]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Masks of the clearly visible targets, and the targets without any voxel."""
    masks, absent = {}, []
    for target in part.targets:
        mask = part.mask(target)
        voxels = int(mask.sum())
        if voxels == 0:
            absent.append(target)
        elif voxels >= max(_MIN_VOXELS, CLEARLY_VISIBLE * largest[target]):
            masks[target] = mask
    return masks, tuple(absent)


def _sides(masks: dict[str, np.ndarray]) -> dict[str, str]:
    """Sides of all targets that lie on one side, in an image of the whole width."""
    sides = {target: side_of(mask) for target, mask in masks.items()}
    return {target: side for target, side in sides.items() if side}
