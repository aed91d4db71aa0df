"""Where targets are in an image: one interface, and the implementations that need no model of ours.

``vividmed.inference.localizer`` implements the interface with a trained model or with a segmenter of the alignment stages.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.data.masks import Box
from vividmed.data.pseudo_labels.study import digest
from vividmed.data.raw.annotation import read_labels
from vividmed.data.raw.images import read_original
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

IMAGE_FILES = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True, eq=False)
class Request:
    """A question to a localizer.

    Attributes:
        id: id of the study.
        number: number of the image in its row.
        images: number of images of the row.
        image: the image as the row stores it.
        targets: canonical names.
        split: split of the row.
    """

    id: str
    number: int
    images: int
    image: MedicalImage
    targets: tuple[str, ...]
    split: str = ""

    @property
    def names(self) -> list[str]:
        """Names under which files of this image may be found, the most specific first.

        The id of a prepared row is ``data set:case``; files are usually named after the case.
        """
        bases = list(dict.fromkeys((self.id, self.id.partition(":")[2] or self.id)))
        slugs = ["".join(c if c.isalnum() or c in "-_." else "-" for c in base) for base in bases]
        bases = list(dict.fromkeys(bases + slugs))
        numbered = [f"{base}_{self.number}" for base in bases]
        return numbered + (bases if self.images == 1 else [])


@dataclass(frozen=True, eq=False)
class Found:
    """A target found in an image: a mask or a box on the image's grid, and the confidence in it if there is one."""

    target: str
    patch: MaskPatch | None = None
    box: Box | None = None
    score: float | None = None


class Localizer(ABC):
    """Finds targets in images.

    Attributes:
        name: name that places and cards repeat.
    """

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides on the result besides the request, as plain JSON."""
        return {"name": self.name}

    def fingerprint(self, request: Request) -> str:
        """Digest of the files that an answer would be read from; empty if there are none."""
        return ""

    @abstractmethod
    def locate(self, request: Request) -> Iterable[Found]:
        """Find targets; one that is not found, or unknown to the localizer, is left out.

        Raises:
            VividMedError: the image cannot be used, or a file is damaged.
        """


@dataclass(frozen=True)
class NameTable:
    """Names of a segmentation program.

    Attributes:
        name: name of the table.
        values: value in a label map to target.
        names: name of a mask to target, in addition to names and synonyms of the taxonomy.
    """

    name: str
    values: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> "NameTable":
        """A table of the package, or a JSON file of the form ``{"values": {"1": "liver"}, "names": {"leber": "liver"}}``.

        Raises:
            VividMedError: there is no such table, or it names a target that is not in the taxonomy.
        """
        tables = _tables()
        if name in tables:
            return cls(name, **_parsed(tables[name], name))
        path = Path(name)
        if not path.is_file():
            raise VividMedError(
                f"--names {name}: is neither a file nor one of {', '.join(tables)}; give one of these or a JSON file"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VividMedError(f"{path}: cannot be read as JSON ({error}); correct it") from error
        return cls(path.name, **_parsed(content, str(path)))

    def target(self, name: str) -> str | None:
        """Target of the name of a mask; None if it means nothing to us."""
        taxonomy = Taxonomy.load()
        plain = " ".join(name.replace("_", " ").split()).lower()
        if plain in self.names:
            return self.names[plain]
        return taxonomy[plain].name if plain in taxonomy else None


@cache
def _tables() -> dict[str, Any]:
    text = files("vividmed.data.pseudo_labels").joinpath("segmenter_names.json").read_text(encoding="utf-8")
    return json.loads(text)


def table_names() -> list[str]:
    """Names of the tables of the package."""
    return list(_tables())


def _parsed(content: Any, where: str) -> dict[str, Any]:
    taxonomy = Taxonomy.load()
    try:
        values = {int(key): taxonomy[name].name for key, name in content.get("values", {}).items()}
        names = {" ".join(k.lower().split()): taxonomy[v].name for k, v in content.get("names", {}).items()}
    except VividMedError as error:
        raise VividMedError(f"{where}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise VividMedError(
            f"{where}: is not of the form {{'values': {{'1': 'liver'}}, 'names': {{}}}} ({error})"
        ) from error
    return {"values": values, "names": names}


class MaskFolder(Localizer):
    """Label maps or masks that a segmentation program has written.

    For a study ``ID``, a label map ``ID.nii.gz`` is read by the values of the table; a folder ``ID`` (or
    ``ID/segmentations``) contains one file per structure, read by its name. A row with several images has ``ID_0``,
    ``ID_1``, ... Maps on another grid are moved to that of the row's image, to the nearest voxel, because prepared images
    are turned, cropped and reduced.

    Args:
        folder: the folder.
        table: names of the program.
    """

    def __init__(self, folder: Path, table: NameTable) -> None:
        if not folder.is_dir():
            raise VividMedError(f"--masks {folder}: no such folder; give the folder of label maps")
        self.folder = folder
        self.table = table
        self.name = f"masks ({table.name})"

    @property
    def settings(self) -> dict[str, Any]:
        table = [sorted(self.table.values.items()), sorted(self.table.names.items())]
        return {"name": self.name, "table": digest(table)}

    def fingerprint(self, request: Request) -> str:
        found = self._files(request)
        return digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in found])

    def locate(self, request: Request) -> Iterable[Found]:
        found = self._files(request)
        if not found:
            raise VividMedError(
                f"{self.folder}: has no masks of {request.id} ({request.names[0]}.nii.gz or a folder of that name)"
            )
        masks: dict[str, np.ndarray] = {}
        if self._is_label_map(request):
            if not self.table.values:
                raise VividMedError(
                    f"{found[0]}: is a label map, but the table {self.table.name} has no values"
                )
            labels = _on_grid(found[0], request.image)
            for value in np.unique(labels):
                if target := self.table.values.get(int(value)):
                    masks[target] = masks.get(target, False) | (labels == value)
        else:
            for path in found:
                target = self.table.target(_stem(path))
                if target and _is_wanted(target, request.targets):
                    masks[target] = masks.get(target, False) | (_on_grid(path, request.image) != 0)
        for target in request.targets:
            mask = _assembled(target, masks)
            patch = None if mask is None else MaskPatch.from_mask(target, mask)
            if patch is not None:
                yield Found(target, patch=patch)

    def _is_label_map(self, request: Request) -> bool:
        return any((self.folder / f"{name}{end}").is_file() for name in request.names for end in IMAGE_FILES)

    def _files(self, request: Request) -> list[Path]:
        for name in request.names:
            for end in IMAGE_FILES:
                if (path := self.folder / f"{name}{end}").is_file():
                    return [path]
            for folder in (self.folder / name, self.folder / name / "segmentations"):
                listed = [path for path in folder.glob("*") if path.name.endswith(IMAGE_FILES)]
                if listed:
                    return sorted(listed)
        return []


def parts_of(target: str) -> tuple[str, ...]:
    """Targets that together make up another one: both sides of a pair, the lobes of a lung, the ribs of a side."""
    taxonomy = Taxonomy.load()
    if target in ("left lung", "right lung"):
        lobes = ("upper", "middle", "lower") if target == "right lung" else ("upper", "lower")
        return tuple(f"{target} {lobe} lobe" for lobe in lobes)
    if target in ("left rib", "right rib"):
        return tuple(f"{target} {number}" for number in range(1, 13))
    groups = {"cervical vertebrae": ("C", 7), "thoracic vertebrae": ("T", 12), "lumbar vertebrae": ("L", 5)}
    if target in groups:
        letter, last = groups[target]
        return tuple(f"{letter}{number} vertebra" for number in range(1, last + 1))
    if target == "vertebra":
        return tuple(groups)
    pair = (f"left {target}", f"right {target}")
    return pair if all(name in taxonomy for name in pair) else ()


def _assembled(target: str, masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The mask of a target, or the union of its parts; None if a part of it was not segmented."""
    if target in masks:
        return masks[target]
    parts = [_assembled(part, masks) for part in parts_of(target)]
    # Ribs and vertebrae outside the image have no mask, and neither has a lobe that was removed.
    found = [part for part in parts if part is not None]
    return np.logical_or.reduce(found) if found else None


def _is_wanted(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name in _all_parts(target) for target in targets)


@cache
def _all_parts(target: str) -> frozenset[str]:
    direct = parts_of(target)
    return frozenset(direct).union(*map(_all_parts, direct))


def _stem(path: Path) -> str:
    for end in IMAGE_FILES:
        if path.name.endswith(end):
            return path.name.removesuffix(end)
    return path.stem


def _on_grid(path: Path, image: MedicalImage) -> np.ndarray:
    """Labels of a file on the grid of an image: moved by whole voxels where possible, else to the nearest voxel."""
    try:
        return read_labels(path, image)
    except VividMedError:
        stored = read_original(path)
        if not (stored.oriented and image.oriented):
            raise
    from scipy import ndimage

    labels = read_labels(path, stored)
    # Index (z, y, x) of the image -> index of the labels.
    turn = np.eye(4)[[2, 1, 0, 3]]
    mapping = turn @ np.linalg.inv(stored.affine) @ image.affine @ turn
    return ndimage.affine_transform(
        labels, mapping[:3, :3], mapping[:3, 3], output_shape=image.size, order=0, mode="constant"
    )
