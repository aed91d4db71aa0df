"""Who is trained on and who is held out: official splits where they exist, else a seeded hash of the patient."""

import hashlib
from collections.abc import Iterable, Mapping

from vividmed.data.raw.case import SPLITS, Split

FRACTIONS: Mapping[Split, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}


def split_by_hash(patient: str, seed: int = 0) -> Split:
    """Split of a patient without an official one.

    It depends on the patient's key and the seed alone: not on the order of files, nor on which other patients there
    are, nor on the data set. The images of a patient who occurs in several data sets lie in one split.

    Args:
        patient: Key across data sets, ``owner:patient``.
        seed: Another seed gives another split.
    """
    digest = hashlib.sha256(f"{seed}\0{patient}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split in ("test", "validation"):
        if place < FRACTIONS[split]:
            return split
        place -= FRACTIONS[split]
    return "train"


def assign_splits(patients: Iterable[tuple[str, Split | None]], seed: int = 0) -> dict[str, Split]:
    """One split a patient.

    Args:
        patients: For every case, the patient's key and the official split, None where there is none.
        seed: Of :func:`split_by_hash`.

    Returns:
        Patient to split. Where a data set puts one patient into several splits, the most held out of them wins.
    """
    official: dict[str, set[Split]] = {}
    for patient, split in patients:
        official.setdefault(patient, set()).update([split] if split else [])
    return {
        patient: max(splits, key=SPLITS.index) if splits else split_by_hash(patient, seed)
        for patient, splits in official.items()
    }
