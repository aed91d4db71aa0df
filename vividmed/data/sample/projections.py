"""Projects radiographs from a CT: line integrals of attenuation, with the projected masks."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from vividmed.data.sample.scan import Scan
from vividmed.data.sample.sources import VolumeSource
from vividmed.data.sample.targets import CHEST_PROJECTION
from vividmed.data.sample.views import CLEARLY_VISIBLE, View, describe_source, generator, to_grey

_SPACING_MM = 2.5
_WATER_PER_MM = 0.019
_TILT_DEGREES = 12.0


def projections(source: VolumeSource, scan: Scan) -> Iterator[View]:
    """Frontal and lateral parallel projections at slightly varying angles and fields of view.

    Attenuation is linear in Hounsfield units; the table and everything else outside the patient is left out. The head
    is up. On frontal views the patient's right is on the left; on lateral views the front is on the left. Whether a
    target is present or absent is decided by its projected mask.
    """
    count = source.projections + source.asked_projections
    if not count:
        return
    scan = scan.resampled((_SPACING_MM,) * 3)
    patient = np.array([ndimage.binary_fill_holes(level) for level in scan.body])
    density = np.where(patient, np.clip(scan.array, -1000, 1500) / 1000 + 1, 0).astype(np.float32)
    targets = [target for target in CHEST_PROJECTION if target in scan.targets]
    for number in range(count):
        only_asked = number >= source.projections
        whole = only_asked or number % 4 < 2
        view = ("frontal", "lateral")[number % 2]
        name = f"{source.name}-{view}-{number:02d}"
        random = generator(name)
        angle = random.uniform(-_TILT_DEGREES, _TILT_DEGREES)
        ray = 1 if view == "frontal" else 2
        path = _rotated(density, angle, mode="bilinear").sum(axis=ray)[::-1] * _SPACING_MM * _WATER_PER_MM
        labels = _rotated(scan.labels, angle, mode="nearest")
        shadows = {target: _shadow(labels == scan.targets[target], ray) for target in targets}
        rows, columns = _field(random, path, whole=whole)
        masks = {target: shadow[rows, columns][None] for target, shadow in shadows.items()}
        present = {
            target: mask
            for target, mask in masks.items()
            if mask.any() and mask.sum() >= CLEARLY_VISIBLE * shadows[target].sum()
        }
        yield View(
            name=name,
            patient=source.name,
            modality="X-ray",
            source=describe_source(source, "radiograph projected from CT"),
            licence=source.archive.licence,
            image=to_grey(path[rows, columns], None),
            plane=view,
            masks=present,
            absent=tuple(target for target, mask in masks.items() if not mask.any()),
            whole=whole,
            use="questions" if only_asked else "both",
        )


def _rotated(array: np.ndarray, degrees: float, *, mode: str) -> np.ndarray:
    """The volume turned about the head-foot axis, on the same grid; much faster than ``ndimage.rotate``."""
    _, height, width = array.shape
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]]])
    grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)
    slices = torch.from_numpy(array.astype(np.float32))[None]
    return F.grid_sample(slices, grid, mode=mode, align_corners=False)[0].numpy()


def _shadow(mask: np.ndarray, axis: int) -> np.ndarray:
    """(H, W) bool projection of a mask, the head up."""
    return np.logical_or.reduce(mask, axis=axis)[::-1]


def _field(random: np.random.Generator, path: np.ndarray, *, whole: bool) -> tuple[slice, slice]:
    """Rows and columns of the field of view: about the whole chest, or a part of it."""
    height = path.shape[0]
    shadow = np.flatnonzero((path > 0).mean(axis=0) > 0.3)
    left, right = int(shadow[0]), int(shadow[-1]) + 1
    share = random.uniform(0.88, 1.0) if whole else random.uniform(0.4, 0.6)
    tall = round(height * share)
    wide = round((right - left) * (share if whole else max(share, 0.7)))
    top = int(random.integers(0, height - tall + 1))
    start = left + int(random.integers(0, right - left - wide + 1))
    return slice(top, top + tall), slice(start, start + wide)
