"""Rows of rare or important targets are drawn more often in an epoch."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_LARGEST = 100


def read_factors(text: str | None) -> dict[str, int]:
    """Factors by canonical name of the target, from ``"left lung=3,right lung=3"``; none for None.

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
        if name not in Taxonomy.load():
            raise VividMedError(
                f"--oversample {name!r}: the taxonomy has no such target; see docs/conversations.md"
            )
        factors[Taxonomy.load()[name].name] = int(number)
    return factors


def oversample(rows: Any, factors: Mapping[str, int]) -> Any:
    """Repeat each row as often as the largest factor of the targets that it shows; copies are augmented differently.

    Args:
        rows: localization rows.
        factors: by canonical name; other targets have the factor 1.

    Raises:
        VividMedError: the rows are those of a mixture, do not name their targets, or show none of those with a factor.
    """
    if not factors:
        return rows
    if not isinstance(rows, Dataset) or "targets" not in rows.column_names:
        raise VividMedError(
            "--oversample needs localization rows of one data set; in a mixture, weights say what is drawn more often"
        )
    repeats = [max([1, *(factors.get(name, 1) for name in names)]) for names in rows["targets"]]
    if max(repeats) == 1 < max(factors.values()):
        raise VividMedError(f"--oversample: no training row shows {' or '.join(factors)}")
    return rows.select([row for row, number in enumerate(repeats) for _ in range(number)])
