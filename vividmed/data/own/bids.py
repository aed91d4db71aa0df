"""Cases of a BIDS data set: images of subjects, and masks and label maps among its derivatives."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vividmed.data.own.bids_files import NAME_PATTERN, BidsFile, mismatch, nifti_files, parse_name, stem
from vividmed.data.own.cells import key_text, number_text
from vividmed.data.own.listing import OwnListing
from vividmed.data.own.modalities import modality_name
from vividmed.data.own.target_names import TargetNames
from vividmed.data.raw.annotation import Annotation, LabelMap, MaskFiles
from vividmed.data.raw.case import Case, Failed, ImageFile, Listed, Skipped, Split
from vividmed.data.raw.splits import official_split
from vividmed.data.raw.tables import read_table
from vividmed.errors import VividMedError

_NOT_IMAGES = frozenset(
    {"mask", "dseg", "probseg", "bold", "dwi", "sbref", "events", "physio", "epi", "fieldmap"}
)
_MASKS = ("mask", "dseg")
_HEMISPHERES = {"L": "left", "R": "right"}
_PREVIEWED = 3


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
        VividMedError: there are no subjects or no masks, none can be used, or ``participants.tsv`` is not a table.
    """
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; give the folder of the BIDS data set")
    paths = list(nifti_files(folder))
    files = [file for path in paths if (file := parse_name(path)) is not None]
    masks = [file for file in files if file.suffix in _MASKS]
    images = [
        f
        for f in files
        if f.suffix not in _NOT_IMAGES and "derivatives" not in f.path.relative_to(folder).parts
    ]
    if not images:
        raise VividMedError(f"{folder}: contains no image named {NAME_PATTERN}; give a BIDS data set")
    if not masks:
        raise VividMedError(f"{folder}: contains no _mask or _dseg files; put them into derivatives")
    splits, unclear = _splits(folder)
    names = TargetNames(renames)
    by_session: dict[tuple[str, str], list[BidsFile]] = defaultdict(list)
    for mask in masks:
        by_session[mask.session].append(mask)
    by_name: dict[str, list[BidsFile]] = defaultdict(list)
    for image in images:
        by_name[image.stem].append(image)
    cases: list[Listed] = [
        Skipped(stem(path), f"its name does not follow BIDS ({NAME_PATTERN}, each entity once)")
        for path in paths
        if parse_name(path) is None
    ]
    labels: dict[str, None] = {}
    for key, (image, *others) in by_name.items():
        try:
            if others:
                listed = " and ".join(each.path.relative_to(folder).as_posix() for each in (image, *others))
                raise VividMedError(f"there are {listed}; keep one of them")
            if reason := unclear.get(image.entities["sub"]):
                raise VividMedError(reason)
            fitting, reason = _fitting(by_session[image.session], image)
            if not fitting:
                cases.append(Skipped(key, reason))
                continue
            cases.append(_case(image, _annotations(fitting, folder, names, labels), splits, modality))
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


def _fitting(masks: Sequence[BidsFile], image: BidsFile) -> tuple[list[BidsFile], str]:
    """The masks of a session that belong to an image, and why there are none."""
    found, reasons = [], ["there is no mask of its subject and session"]
    for mask in masks:
        if reason := mismatch(mask, image):
            reasons.append(f"no mask fits it: {mask.path.name} {reason}")
        else:
            found.append(mask)
    return found, reasons[-1]


def _case(
    image: BidsFile, annotations: Iterable[Annotation], splits: Mapping[str, Split], modality: str
) -> Case:
    subject = image.entities["sub"]
    return Case(
        id=image.stem,
        patient=subject,
        split=splits.get(subject),
        images=(ImageFile(path=image.path, modality=modality_name(modality or image.suffix)),),
        annotations=tuple(annotations),
    )


def _annotations(
    masks: Sequence[BidsFile], folder: Path, names: TargetNames, labels: dict[str, None]
) -> Iterator[Annotation]:
    files: dict[str, list[Path]] = defaultdict(list)
    shown_by: dict[str, BidsFile] = {}
    for mask in masks:
        values = _lookup(mask, folder) if mask.suffix == "dseg" else {1: _structure(mask)}
        targets = {name: names.find(name) for name in values.values()}
        labels |= dict.fromkeys(targets)
        for name in targets:
            # Masks with other names may be instances of one target: --map gives them the same.
            if (other := shown_by.setdefault(name, mask)) is not mask and targets[name] is not None:
                paths = " and ".join(each.path.relative_to(folder).as_posix() for each in (other, mask))
                raise VividMedError(f"{paths} both show {name!r}; keep one of them")
        if mask.suffix != "dseg":
            if (target := targets[values[1]]) is not None:
                files[target].append(mask.path)
            continue
        kept: dict[str, tuple[int, ...]] = {}
        for value, name in values.items():
            if (target := targets[name]) is not None and value > 0:
                kept[target] = (*kept.get(target, ()), value)
        ignored = tuple(value for value, name in values.items() if targets[name] is None)
        yield LabelMap(mask.path, kept, ignored=ignored, covers_image=True, listed_in="its _dseg.tsv")
    if files:
        yield MaskFiles({target: tuple(paths) for target, paths in files.items()})


def _structure(mask: BidsFile) -> str:
    """Name of what a mask shows, with its side."""
    structure = mask.entities.get("label") or mask.entities.get("desc")
    if structure is None:
        raise VividMedError(f"{mask.path.name}: names no structure; add label-<name> to its name")
    side = _HEMISPHERES.get(mask.entities.get("hemi", ""))
    return f"{side} {structure}" if side else structure


def _lookup(mask: BidsFile, folder: Path) -> dict[int, str]:
    """Names of a label map's values, from the table beside it, or from one above it that its name does not contradict."""
    own = re.sub(r"\.nii(\.gz)?$", ".tsv", mask.path.name)
    for place in (mask.path.parent, *mask.path.parent.parents):
        for path in [place / own, *sorted(place.glob("*dseg.tsv"))]:
            pairs = [part for part in path.name.removesuffix(".tsv").split("_") if "-" in part]
            if path.is_file() and all(
                mask.entities.get(k) == v for k, v in (pair.split("-", 1) for pair in pairs)
            ):
                return _named_values(path)
        if place == folder:
            break
    raise VividMedError(
        f"{mask.path.name}: no _dseg.tsv names its values; add one with the columns index and name"
    )


def _named_values(path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in read_table(path, "index", "name", delimiter="\t"):
        try:
            value = int(number_text(row["index"]))
        except ValueError as error:
            raise VividMedError(
                f"{row.where}: index {row['index']!r} is not a whole number; correct it"
            ) from error
        if row["name"] and found.setdefault(value, row["name"]) != row["name"]:
            raise VividMedError(
                f"{row.where}: index {value} already has the name {found[value]!r}; keep one of them"
            )
    return found


def _splits(folder: Path) -> tuple[dict[str, Split], dict[str, str]]:
    """Split of each subject, and the reason of each one whose split is not clear."""
    path = folder / "participants.tsv"
    splits: dict[str, Split] = {}
    unclear: dict[str, str] = {}
    if not path.is_file():
        return splits, unclear
    for row in read_table(path, "participant_id", delimiter="\t"):
        text = key_text(row.get("split", ""))
        split = official_split(text) if text else None
        subject = row["participant_id"].removeprefix("sub-")
        if text and split is None:
            unclear[subject] = f"{row.where}: split {text!r} is unknown; write train, validation or test"
        if split is not None and splits.setdefault(subject, split) != split:
            unclear[subject] = (
                f"{row.where}: subject {subject!r} is already in the split {splits[subject]}; keep one"
            )
    return splits, unclear


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
