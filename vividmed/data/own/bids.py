"""Cases of a BIDS data set: images of subjects, and masks and label maps among its derivatives."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from vividmed.data.own.cells import key_text
from vividmed.data.own.listing import OwnListing
from vividmed.data.own.modalities import modality_name
from vividmed.data.own.target_names import TargetNames
from vividmed.data.raw.annotation import Annotation, LabelMap, MaskFiles
from vividmed.data.raw.case import Case, Failed, ImageFile, Listed, Skipped, Split
from vividmed.data.raw.splits import official_split
from vividmed.data.raw.tables import TableRow, read_table
from vividmed.errors import VividMedError
from vividmed.processing.file_errors import readable_as
from vividmed.processing.nifti import load_nifti

_ENDINGS = (".nii.gz", ".nii")
_NOT_IMAGES = frozenset(
    {"mask", "dseg", "probseg", "bold", "dwi", "sbref", "events", "physio", "epi", "fieldmap"}
)
_MASKS = ("mask", "dseg")
_OF_THE_SCAN = ("ses", "acq", "ce", "rec", "run", "echo", "part", "chunk")
"""Entities by which the images of a session differ; a mask that names one belongs to the image with the same value."""

_HEMISPHERES = {"L": "left", "R": "right"}
_SAME_PLACE = 0.01
_PREVIEWED = 3


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


def read_bids_listing(
    folder: Path, *, renames: Mapping[str, str] | None = None, modality: str = ""
) -> OwnListing:
    """Read a BIDS data set with masks (``_mask``) or label maps (``_dseg``) in ``derivatives``.

    A mask belongs to the images of its subject and session whose grid it has and whose ``acq``, ``run``, ... it does not
    contradict. Its ``label`` (or ``desc``) names the structure, ``hemi`` the side. Names of a label map's values are
    read from the ``_dseg.tsv`` beside it or above it. ``participants.tsv`` may have a column ``split``.

    Args:
        folder: folder of the data set.
        renames: label to target, where the label's own name is not in the taxonomy.
        modality: of all images; by default as their suffix says.

    Raises:
        VividMedError: there are no subjects or no masks, or ``participants.tsv`` is malformed.
    """
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; give the folder of the BIDS data set")
    files = [file for path in sorted(_nifti_files(folder)) if (file := parse_name(path)) is not None]
    masks = [file for file in files if file.suffix in _MASKS]
    images = [
        f
        for f in files
        if f.suffix not in _NOT_IMAGES and "derivatives" not in f.path.relative_to(folder).parts
    ]
    if not images:
        raise VividMedError(
            f"{folder}: contains no image named sub-<label>..._<suffix>.nii.gz; give a BIDS data set"
        )
    if not masks:
        raise VividMedError(f"{folder}: contains no _mask or _dseg files; put them into derivatives")
    splits = _splits(folder)
    names = TargetNames(renames)
    by_session: dict[tuple[str, str], list[BidsFile]] = defaultdict(list)
    for mask in masks:
        by_session[_session(mask)].append(mask)
    cases: list[Listed] = []
    labels: dict[str, None] = {}
    for image in images:
        key = image.path.name.removesuffix(".gz").removesuffix(".nii")
        try:
            found = [mask for mask in by_session[_session(image)] if _fits(mask, image)]
            if not found:
                cases.append(Skipped(key, "no mask of its subject and session lies on its grid"))
                continue
            annotations = list(_annotations(found, folder, names, labels))
            cases.append(
                Case(
                    id=key,
                    patient=image.entities["sub"],
                    split=splits.get(image.entities["sub"]),
                    images=(ImageFile(path=image.path, modality=modality_name(modality or image.suffix)),),
                    annotations=tuple(annotations),
                )
            )
        except VividMedError as error:
            cases.append(Failed(key, str(error)))
    names.check_used(labels, str(folder))
    usable = [case for case in cases if isinstance(case, Case)]
    if not usable:
        reasons = [case.reason for case in cases if isinstance(case, Skipped | Failed)]
        raise VividMedError(f"{folder}: no image has a mask that can be used; the first one: {reasons[0]}")
    return OwnListing(
        row_kind="localization",
        origin=folder.absolute(),
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys(i.modality for case in usable for i in case.images)),
        has_splits=bool(splits),
        overview=tuple(_overview(folder, images, masks, usable, labels, names)),
        preview=tuple(_preview(usable)),
    )


def parse_name(path: Path) -> BidsFile | None:
    """Entities and suffix of a file; None if its name does not follow BIDS."""
    *pairs, suffix = re.sub(r"\.nii(\.gz)?$", "", path.name).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if "sub" not in entities or len(entities) < len(pairs) or not suffix or "-" in suffix:
        return None
    return BidsFile(path, entities, suffix)


def _nifti_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("sub-*.nii*"):
        if path.name.endswith(_ENDINGS) and not any(
            p.startswith(".") for p in path.relative_to(folder).parts
        ):
            yield path


def _session(file: BidsFile) -> tuple[str, str]:
    return file.entities["sub"], file.entities.get("ses", "")


def _fits(mask: BidsFile, image: BidsFile) -> bool:
    """Whether a mask may belong to an image, by its name and by the header of both files."""
    if any(mask.entities[e] != image.entities.get(e) for e in _OF_THE_SCAN if e in mask.entities):
        return False
    space = mask.entities.get("space", "")
    suffixes = {image.suffix, image.suffix.removesuffix("w"), "orig", "individual", "native", ""}
    if space.lower() not in {suffix.lower() for suffix in suffixes}:
        return False
    grids = []
    for file in (mask, image):
        if not file.path.stat().st_size:
            # A file that was not downloaded: reading the case names it.
            return True
        with readable_as(file.path, "NIfTI file"):
            header = load_nifti(file.path)
            grids.append((header.shape[:3], np.asarray(header.affine)))
    return bool(_same_lattice(*grids[0], *grids[1]))


def _same_lattice(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> bool:
    """Whether two headers describe one lattice, up to the order and direction of axes."""
    if sorted(shape) != sorted(other_shape):
        return False
    canonical = [nib.orientations.io_orientation(each) @ np.array([1, 0]) for each in (affine, other_affine)]
    spacings = [
        np.linalg.norm(each[:3, :3], axis=0)[np.argsort(order)]
        for each, order in zip((affine, other_affine), canonical, strict=True)
    ]
    return bool(np.allclose(spacings[0], spacings[1], atol=_SAME_PLACE * float(spacings[0].min())))


def _annotations(
    masks: Sequence[BidsFile], folder: Path, names: TargetNames, labels: dict[str, None]
) -> Iterator[Annotation]:
    files: dict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        if mask.suffix == "dseg":
            values = _lookup(mask, folder)
            found = {name: names.find(name) for name in values.values()}
            labels |= dict.fromkeys(found)
            kept: dict[str, tuple[int, ...]] = {}
            for value, name in values.items():
                if (target := found[name]) is not None and value > 0:
                    kept[target] = (*kept.get(target, ()), value)
            yield LabelMap(mask.path, kept, ignored=tuple(v for v, n in values.items() if found[n] is None))
            continue
        structure = mask.entities.get("label") or mask.entities.get("desc")
        if structure is None:
            raise VividMedError(f"{mask.path.name}: names no structure; add label-<name> to its name")
        side = _HEMISPHERES.get(mask.entities.get("hemi", ""))
        name = f"{side} {structure}" if side else structure
        labels[name] = None
        if (target := names.find(name)) is not None:
            files[target].append(mask.path)
    if files:
        yield MaskFiles({target: tuple(paths) for target, paths in files.items()})


def _lookup(mask: BidsFile, folder: Path) -> dict[int, str]:
    """Names of a label map's values, from the table beside it, or from one above it that its name does not contradict."""
    own = re.sub(r"\.nii(\.gz)?$", ".tsv", mask.path.name)
    for place in (mask.path.parent, *mask.path.parent.parents):
        for path in [place / own, *sorted(place.glob("*dseg.tsv"))]:
            pairs = [part for part in path.name.removesuffix(".tsv").split("_") if "-" in part]
            if path.is_file() and all(
                mask.entities.get(k) == v for k, v in (pair.split("-", 1) for pair in pairs)
            ):
                rows = read_table(path, "index", "name", delimiter="\t")
                return {_index(row): row["name"] for row in rows if row["name"]}
        if place == folder:
            break
    raise VividMedError(
        f"{mask.path.name}: no _dseg.tsv names its values; add one with the columns index and name"
    )


def _index(row: TableRow) -> int:
    try:
        return int(row["index"])
    except ValueError as error:
        raise VividMedError(
            f"{row.where}: index {row['index']!r} is not a whole number; correct it"
        ) from error


def _splits(folder: Path) -> dict[str, Split]:
    path = folder / "participants.tsv"
    if not path.is_file():
        return {}
    splits: dict[str, Split] = {}
    for row in read_table(path, "participant_id", delimiter="\t"):
        text = key_text(row.get("split", ""))
        split = official_split(text) if text else None
        if text and split is None:
            raise VividMedError(f"{row.where}: split {text!r} is unknown; write train, validation or test")
        if split is not None:
            splits[row["participant_id"].removeprefix("sub-")] = split
    return splits


def _overview(
    folder: Path,
    images: Sequence[BidsFile],
    masks: Sequence[BidsFile],
    cases: Sequence[Case],
    labels: Iterable[str],
    names: TargetNames,
) -> list[str]:
    subjects = len({image.entities["sub"] for image in images})
    lines = [
        f"{folder}: {len(images)} images of {subjects} subjects, {len(masks)} masks; {len(cases)} images have masks"
    ]
    lines += [f"  label      {label!r}: {names.find(label) or 'not used'}" for label in labels]
    return lines


def _preview(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases[:_PREVIEWED]:
        yield f"{case.id}: {', '.join(target for a in case.annotations for target in a.targets)}"
