"""Files of a BIDS data set: what their names say, and which mask belongs to which image."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from vividmed.processing.file_errors import readable_as
from vividmed.processing.nifti import load_nifti

NAME_PATTERN = "sub-<label>[_<entity>-<label>...]_<suffix>.nii.gz"

_ENDINGS = (".nii.gz", ".nii")
_NOT_DATA = frozenset({"sourcedata", "code"})
"""Folders that BIDS reserves for what is no part of the data set, such as images before their conversion."""

_OF_THE_SCAN = ("ses", "acq", "ce", "rec", "run", "echo", "part", "chunk")
"""Entities by which the images of a session differ; a mask that names one belongs to the image with the same value."""

_SAME_PLACE = 0.01


@dataclass(frozen=True)
class BidsFile:
    """A NIfTI file whose name follows BIDS.

    Attributes:
        path: of the file.
        entities: ``sub``, ``ses``, ``label``, ... to their values.
        suffix: ``T1w``, ``mask``, ...
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """Name without its ending."""
        return stem(self.path)

    @property
    def session(self) -> tuple[str, str]:
        """Subject and session."""
        return self.entities["sub"], self.entities.get("ses", "")


def stem(path: Path) -> str:
    """Name of a NIfTI file without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def parse_name(path: Path) -> BidsFile | None:
    """Entities and suffix of a file; None if its name does not follow BIDS."""
    *pairs, suffix = stem(path).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if "sub" not in entities or len(entities) < len(pairs) or not suffix or "-" in suffix:
        return None
    return BidsFile(path, entities, suffix)


def nifti_files(folder: Path) -> Iterator[Path]:
    """Files of subjects, also below links to folders; hidden folders and those outside the data set are left out."""
    for root, folders, names in os.walk(folder, followlinks=True):
        place = Path(root)
        if os.path.realpath(place) in {os.path.realpath(parent) for parent in place.parents}:
            folders.clear()  # a link that leads back
            continue
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not (place == folder and name in _NOT_DATA)
        )
        for name in sorted(names):
            if name.startswith("sub-") and name.endswith(_ENDINGS):
                yield place / name


def mismatch(mask: BidsFile, image: BidsFile) -> str:
    """Why a mask cannot belong to an image of its session, by its name and by the header of both files; empty if it can.

    Raises:
        VividMedError: a header cannot be read.
    """
    for entity in _OF_THE_SCAN:
        if entity in mask.entities and mask.entities[entity] != image.entities.get(entity):
            return f"is of {entity}-{mask.entities[entity]}"
    space = mask.entities.get("space", "")
    suffixes = {image.suffix, image.suffix.removesuffix("w"), "orig", "individual", "native", ""}
    if space.lower() not in {suffix.lower() for suffix in suffixes}:
        return f"is in the space {space!r}"
    grids = []
    for file in (mask, image):
        if not _has_content(file.path):
            return ""  # a file that was not downloaded: reading the case names it
        with readable_as(file.path, "NIfTI file"):
            header = load_nifti(file.path)
            grids.append((header.shape[:3], np.asarray(header.affine)))
    return _lattice_mismatch(*grids[0], *grids[1])


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # such as a link that leads nowhere
        return False


def _lattice_mismatch(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> str:
    """How the lattices of two headers differ, up to the order and direction of axes; empty if they are one."""
    if sorted(shape) != sorted(other_shape):
        return f"has {_times(shape)} voxels, but the image {_times(other_shape)}"
    canonical = [nib.orientations.io_orientation(each) @ np.array([1, 0]) for each in (affine, other_affine)]
    spacings = [
        np.linalg.norm(each[:3, :3], axis=0)[np.argsort(order)]
        for each, order in zip((affine, other_affine), canonical, strict=True)
    ]
    if np.allclose(spacings[0], spacings[1], atol=_SAME_PLACE * float(spacings[0].min())):
        return ""
    return f"has voxels of {_times(spacings[0])} mm, but the image {_times(spacings[1])} mm"


def _times(numbers: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
