"""Facts and functions shared by CT-RATE and the data sets that annotate its volumes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from vividmed.data.adapters.base import Adapter, Split, official_split
from vividmed.data.raw.documents import is_file, read_json
from vividmed.data.terms import Redistribution
from vividmed.errors import VividMedError

LICENCE = "CC BY-NC-SA 4.0"
TERMS = (
    "The Hub repository is gated: every user accepts its conditions, and prepared data needs the same gate."
)
PARTS = (("train", "train"), ("valid", "validation"))
"""Beginning of the names of volumes and folders, and beginning of the names of tables."""

REXGROUNDINGCT = "ReXGroundingCT/dataset.json"

_VOLUME = re.compile(r"((train|valid)_\d+)_([a-z]+)_\d+")


class CTRATEAdapter(Adapter):
    """A data set on volumes of CT-RATE: its patients and splits, and how its volumes are made smaller."""

    modalities = ("CT",)
    licence = LICENCE
    access = "registered"
    redistribute: ClassVar[Redistribution] = "derived_gated"
    terms = TERMS
    patients = "ct-rate"
    published_split = True
    exclude_minimum = True
    max_depth = 128
    max_in_plane = 256


def volume_name(file_name: str) -> str:
    """Name of a volume without the ending of its file."""
    return file_name.removesuffix(".nii.gz")


def patient_of(volume: str) -> str:
    """``train_12`` for ``train_12_a_1``.

    Raises:
        VividMedError: CT-RATE has no volume of such a name.
    """
    return _matched(volume)[1]


def study_of(volume: str) -> str:
    """``train_12_a`` for ``train_12_a_1``.

    Raises:
        VividMedError: CT-RATE has no volume of such a name.
    """
    return f"{_matched(volume)[1]}_{_matched(volume)[3]}"


def volume_path(origin: Path, volume: str) -> Path:
    """Path of a volume in the second release."""
    patient = patient_of(volume)
    return origin / f"dataset/{patient.partition('_')[0]}_fixed/{patient}/{study_of(volume)}/{volume}.nii.gz"


def listed_volumes(path: Path) -> Iterator[tuple[str, dict]]:
    """Part and entry of every volume that the list of ReXGroundingCT names.

    Raises:
        VividMedError: The list is missing or has another form.
    """
    content = read_json(path)
    try:
        entries = [(str(part), entry) for part, group in content.items() for entry in group]
    except (AttributeError, TypeError) as error:
        raise VividMedError(f"{path}: not in the form {{split: [{{name, findings}}]}} ({error})") from error
    for part, entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise VividMedError(
                f"{path}: an entry of {part!r} has no name; take the file as it is distributed"
            )
        yield part, entry


def held_out_patients(origin: Path) -> dict[str, Split]:
    """Patients that another data set holds out, with their split.

    ReXGroundingCT holds out patients of the training folder. If its list lies in the origin, they are held out here as
    well, so that nobody is trained on who is tested on.
    """
    path = origin / REXGROUNDINGCT
    splits: dict[str, Split] = {}
    for part, entry in listed_volumes(path) if is_file(path) else ():
        match = _VOLUME.fullmatch(volume_name(entry["name"]))
        split = official_split(part)
        if match and split in ("validation", "test") and splits.get(match[1]) != "test":
            splits[match[1]] = "test" if match[1].startswith("valid") else split
    return splits


def split_of(patient: str, held_out: dict[str, Split]) -> Split:
    """Split of a patient: the validation folder is the test set, as in publications on the data set.

    Args:
        patient: see :func:`patient_of`.
        held_out: see :func:`held_out_patients`.
    """
    return held_out.get(patient, "test" if patient.startswith("valid") else "train")


def _matched(volume: str) -> re.Match[str]:
    match = _VOLUME.fullmatch(volume)
    if match is None:
        raise VividMedError(
            f"{volume!r} is not the name of a CT-RATE volume; names look like train_12_a_1 or valid_3_b_2"
        )
    return match
