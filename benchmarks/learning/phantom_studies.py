"""Generated chest phantoms: ellipsoid lungs and heart in noise, with nodules whose number, size and side are known.

A phantom depends only on (seed, number), and numbers that were not trained on are held out. Volumes are stored
with their axes in random directions, which only the affine reveals: right and left are visible in the image itself
once it is reoriented by the affine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from datasets import Dataset

from vividmed.data.masks import bounding_box, pack_mask
from vividmed.data.schema import schema

SIZE = (8, 32, 32)
SPACING = (4.0, 1.0, 1.0)
NODULE = "lung nodule"
COUNTS = ("no", "one", "two")

_BACKGROUND, _LUNG, _HEART, _NODULE = 0.35, 0.15, 0.6, 0.9
_NOISE = 0.06
# Centre as a fraction of the image and semi-axes in voxels, (z, y, x); x runs to the patient's left here.
_ORGANS = {
    "right lung": ((0.5, 0.5, 0.25), (3.6, 11.5, 6.5)),
    "left lung": ((0.5, 0.5, 0.75), (3.6, 11.5, 6.5)),
    "heart": ((0.5, 0.3, 0.52), (2.4, 4.6, 3.8)),
}
_SEMI_AXES = {"small": (1.9, 2.8, 2.8), "large": (2.7, 4.5, 4.5)}


@dataclass(frozen=True, eq=False)
class Phantom:
    """One phantom.

    Attributes:
        name: contains its seed and number.
        volume: (D, H, W) int16, Hounsfield-like, stored with the axes of ``affine``.
        affine: 4 x 4, voxel index (x, y, z) -> RAS+ mm.
        organs: name -> (D, H, W) bool.
        nodules: (D, H, W) bool each; all in one lung and of one size.
        side: side of the nodules; None if there are none.
        size: size of the nodules; None if there are none.
    """

    name: str
    volume: np.ndarray
    affine: np.ndarray
    organs: dict[str, np.ndarray]
    nodules: Sequence[np.ndarray]
    side: Literal["left", "right"] | None
    size: Literal["small", "large"] | None

    @property
    def boxes(self) -> list[list[int]]:
        """Corners (z0, y0, x0, z1, y1, x1) of each nodule."""
        return [list(box) for nodule in self.nodules if (box := bounding_box(nodule))]


def make_phantom(number: int, *, seed: int = 0) -> Phantom:
    """Draw a phantom."""
    generator = np.random.default_rng((seed, number))
    organs = {}
    for name, (centre, semi_axes) in _ORGANS.items():
        if name == "heart" and generator.random() < 0.15:
            continue
        moved = np.array(centre) * SIZE + generator.uniform(-1, 1, 3) * (0.4, 1.3, 1.0)
        organs[name] = (moved, np.array(semi_axes) * generator.uniform(0.9, 1.05, 3))
    count = int(generator.choice(3, p=(0.15, 0.45, 0.4)))
    side = str(generator.choice(["left", "right"])) if count else None
    size = str(generator.choice(["small", "large"])) if count else None
    nodules = _place_nodules(organs[f"{side} lung"], count, size, generator) if count else []

    values = np.full(SIZE, _BACKGROUND)
    masks = {name: _ellipsoid(*shape) for name, shape in organs.items()}
    for name, mask in masks.items():
        values[mask] = _HEART if name == "heart" else _LUNG
    # The heart lies in front of the lungs, so the image shows the heart where they overlap.
    if "heart" in masks:
        masks |= {name: masks[name] & ~masks["heart"] for name in ("right lung", "left lung")}
    for nodule in nodules:
        values[nodule] = _NODULE
    values += generator.normal(0, _NOISE, SIZE)
    flips = [bool(generator.random() < 0.5) for _ in range(3)]
    return Phantom(
        name=f"phantom-{seed}-{number:05d}",
        volume=_flip((values * 1000 - 500).round().astype(np.int16), flips),
        affine=_affine(flips),
        organs={name: _flip(mask, flips) for name, mask in masks.items()},
        nodules=[_flip(nodule, flips) for nodule in nodules],
        side=side,  # type: ignore[arg-type]
        size=size,  # type: ignore[arg-type]
    )


def localization_row(phantom: Phantom) -> dict[str, Any]:
    """Organs with masks, nodules with boxes, and what is not there."""
    boxes = [{"target": NODULE, "box": box} for box in phantom.boxes]
    return {
        **_common(phantom, "localization"),
        "targets": [*phantom.organs, *([NODULE] if boxes else [])],
        "absent": [name for name in _ORGANS if name not in phantom.organs] + ([] if boxes else [NODULE]),
        "masks": [dict(pack_mask(name, mask)) for name, mask in phantom.organs.items()],
        "boxes": boxes,
        "incomplete": [],
    }


def report_row(phantom: Phantom) -> dict[str, Any]:
    """A report that states organs, and number, size and side of the nodules, with its phrases grounded."""
    marked = marked_report(phantom)
    parts = marked.replace("<p>", "\0").replace("</p>", "\0").split("\0")
    phrases, position = [], 0
    for number, part in enumerate(parts):
        if number % 2:
            target = part if part in phantom.organs else NODULE
            end = position + len(part)
            phrases.append({"text": part, "start": position, "end": end, "targets": [target]})
        position += len(part)
    located = {name: localization_row(phantom)[name] for name in ("masks", "boxes", "incomplete")}
    return {**_common(phantom, "report"), "report": marked, "phrases": phrases, **located}


def marked_report(phantom: Phantom) -> str:
    """The report with ``<p>`` and ``</p>`` around its phrases."""
    *others, last = [f"the <p>{name}</p>" for name in phantom.organs]
    seen = f"{', '.join(others)} and {last} are visible."
    count = len(phantom.nodules)
    if not count:
        return f"{seen.capitalize()} No nodule is seen."
    verb, noun = ("is", "nodule") if count == 1 else ("are", "nodules")
    finding = f"There {verb} {COUNTS[count]} {phantom.size} <p>{noun}</p> in the {phantom.side} lung."
    return f"{seen.capitalize()} {finding}"


def make_rows(kind: Literal["localization", "grounded_report"], phantoms: Iterable[Phantom]) -> Dataset:
    """Rows of phantoms as a data set."""
    row = localization_row if kind == "localization" else report_row
    return Dataset.from_list([row(phantom) for phantom in phantoms], features=schema(kind))


def _common(phantom: Phantom, suffix: str) -> dict[str, Any]:
    image = nib.Nifti1Image(phantom.volume.transpose(2, 1, 0), phantom.affine)
    return {
        "id": f"{phantom.name}-{suffix}",
        "patient": phantom.name,
        "images": [],
        "volumes": [image],
        "modality": "CT",
        "source": "generated phantom",
        "licence": "CC0-1.0",
    }


def _place_nodules(
    lung: tuple[np.ndarray, np.ndarray], count: int, size: str | None, generator: np.random.Generator
) -> list[np.ndarray]:
    """Draw nodules inside a lung, again and again until they do not touch."""
    centre, reach = lung
    while True:
        shapes = []
        for _ in range(count):
            semi_axes = np.array(_SEMI_AXES[str(size)]) * generator.uniform(0.9, 1.1, 3)
            direction = generator.normal(size=3)
            direction *= generator.random() ** (1 / 3) / np.linalg.norm(direction)
            shapes.append((centre + direction * np.maximum(reach - semi_axes - 0.5, 0), semi_axes))
        if count < 2 or (abs(shapes[0][0] - shapes[1][0]) > shapes[0][1] + shapes[1][1] + 1).any():
            return [_ellipsoid(*shape) for shape in shapes]


def _ellipsoid(centre: np.ndarray, semi_axes: np.ndarray) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0.5, n) for n in SIZE)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, semi_axes, strict=True)) <= 1


def _flip(array: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    return np.ascontiguousarray(np.flip(array, [axis for axis in range(3) if flips[axis]]))


def _affine(flips: Sequence[bool]) -> np.ndarray:
    """Affine of a volume whose axes (z, y, x), before flipping, run up, backwards and to the left."""
    z, y, x = (-1.0 if flip else 1.0 for flip in flips)
    return np.diag([-x * SPACING[2], -y * SPACING[1], z * SPACING[0], 1.0])
