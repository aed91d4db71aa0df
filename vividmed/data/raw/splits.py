"""Who is trained on and who is held out: official splits where they exist, else a seeded hash of the patient."""

import hashlib
import re
from collections.abc import Iterable, Mapping

from vividmed.data.raw.case import SPLITS, Split

FRACTIONS: Mapping[Split, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}

_SPELLINGS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "ts": "test",
    "heldout": "test",
    "holdout": "test",
}
_FILLERS = re.compile(r"[\W_]+|(?:data)?set\b|\b(?:data|split)\b")
"""Signs and words that do not tell one split from another: ``Train Set``, ``val.``, ``test_split``."""


def official_split(name: str) -> Split | None:
    """The split that a data set names: ``val``, ``Dev set``, ``hold-out``, ...; None if it is not one of the three."""
    return _SPELLINGS.get(_FILLERS.sub("", name.lower().replace("_", " ")))


def split_by_hash(patient: str, seed: int = 0) -> Split:
    """Split of a patient without an official one.

    It depends on the patient's key and the seed only: not on the order of files, nor on the other patients, nor on the
    data set. The images of a patient who occurs in several data sets lie in one split.

    Args:
        patient: key across data sets, ``owner:patient``.
        seed: number that selects another division.
    """
    place = _place(patient, seed)
    for split in ("test", "validation"):
        if place < FRACTIONS[split]:
            return split
        place -= FRACTIONS[split]
    return "train"


def assign_splits(
    patients: Iterable[tuple[str, Split | None]],
    seed: int = 0,
    *,
    fill: bool = True,
    ratios: Mapping[Split, float] | None = None,
) -> dict[str, Split]:
    """Give every patient one split.

    Args:
        patients: for every case, the patient's key and the official split, None if there is none.
        seed: see :func:`split_by_hash`.
        fill: hold out somebody for test, and then for validation, in a data set without official splits that is so
            small that the hash selects nobody: the patient whose hash comes closest. One patient always stays in
            training. Switch it off for data sets that share patients with others.
        ratios: shares of the patients; see :func:`divide_patients`. By default the hash of each patient decides.

    Returns:
        Patient to split. A patient whom the data set puts into several splits gets the most held out of them.
    """
    official: dict[str, set[Split]] = {}
    for patient, split in patients:
        official.setdefault(patient, set()).update([split] if split else [])
    if ratios is None:
        others = {patient: split_by_hash(patient, seed) for patient, splits in official.items() if not splits}
    else:
        others = divide_patients((p for p, splits in official.items() if not splits), ratios, seed)
    result = {
        patient: max(splits, key=SPLITS.index) if splits else others[patient]
        for patient, splits in official.items()
    }
    if ratios is None and fill and not any(official.values()):
        for wanted in ("test", "validation"):
            trained = [patient for patient, split in result.items() if split == "train"]
            if wanted not in result.values() and len(trained) > 1:
                result[min(trained, key=lambda patient: _place(patient, seed))] = wanted
    return result


def divide_patients(
    patients: Iterable[str], ratios: Mapping[Split, float], seed: int = 0
) -> dict[str, Split]:
    """Divide patients in stated ratios, in the order of their hashes.

    The numbers are the ratios rounded, but at least one patient for each split whose ratio is not 0: training first, then
    test, then validation. When patients are added, only few of the others move.

    Args:
        patients: their keys.
        ratios: shares that add up to 1.
        seed: number that selects another division.
    """
    ordered = sorted(set(patients), key=lambda patient: (_place(patient, seed), patient))
    wanted: tuple[Split, ...] = ("test", "validation")
    least = {split: int(ratios[split] > 0) for split in wanted}
    numbers = {split: max(least[split], round(ratios[split] * len(ordered))) for split in wanted}
    # Somebody to train on comes first, and somebody for test before somebody for validation.
    numbers["test"] = min(numbers["test"], max(0, len(ordered) - 1))
    numbers["validation"] = min(numbers["validation"], max(0, len(ordered) - 1 - numbers["test"]))
    result: dict[str, Split] = dict.fromkeys(ordered, "train")
    result |= dict.fromkeys(ordered[: numbers["test"]], "test")
    result |= dict.fromkeys(ordered[numbers["test"] :][: numbers["validation"]], "validation")
    return result


def _place(patient: str, seed: int) -> float:
    """Position of a patient between 0 and 1, uniformly distributed."""
    digest = hashlib.sha256(f"{seed}\0{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
