"""Rows of rare or important targets are drawn more often in an epoch."""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

VOLUMES = "volumes"
_LARGEST = 100


def read_factors(text: str | None) -> dict[str, int]:
    """Factors by canonical name of the target, from ``"left lung=3,right lung=3,volumes=2"``; none for None.

    Raises:
        VividMedError: a name is not in the taxonomy, or a factor is not a whole number from 1 to 100.
    """
    factors: dict[str, int] = {}
    for part in filter(None, (text or "").split(",")):
        name, separator, number = (piece.strip() for piece in part.partition("="))
        if not separator or not number.isdecimal() or not 1 <= int(number) <= _LARGEST:
            raise VividMedError(
                f"--oversample {part.strip()!r}: give a target and a whole number from 1 to {_LARGEST}, such as 'left lung=3'"
            )
        if name != VOLUMES and name not in Taxonomy.load():
            raise VividMedError(
                f"--oversample {name!r}: the taxonomy has no such target; see docs/conversations.md"
            )
        factors[name if name == VOLUMES else Taxonomy.load()[name].name] = int(number)
    return factors


def oversample(rows: Any, factors: Mapping[str, int]) -> Any:
    """Repeat rows, each as often as the largest factor of the targets that it shows; copies are augmented differently.

    Rows with a volume are repeated by the factor of ``volumes`` in addition: the two are multiplied.

    Args:
        rows: localization rows.
        factors: by canonical name, or ``volumes``; others have the factor 1.

    Raises:
        VividMedError: the rows are those of a mixture, do not name their targets, or show none of those with a factor.
    """
    if not factors:
        return rows
    if not isinstance(rows, Dataset) or not {"targets", VOLUMES} <= set(rows.column_names):
        raise VividMedError(
            "--oversample needs localization rows of one data set; in a mixture, weights say what is drawn more often"
        )
    of_targets = [max([1, *(factors.get(name, 1) for name in names)]) for names in rows["targets"]]
    stored = rows.select_columns(VOLUMES).with_format("arrow")[VOLUMES]
    of_volumes = [
        factors.get(VOLUMES, 1) if count else 1 for count in pc.list_value_length(stored[:]).to_pylist()
    ]
    repeats = [targets * volumes for targets, volumes in zip(of_targets, of_volumes, strict=True)]
    if max(repeats) == 1 < max(factors.values()):
        raise VividMedError(f"--oversample: no training row shows {' or '.join(factors)}")
    return rows.select([row for row, number in enumerate(repeats) for _ in range(number)])
