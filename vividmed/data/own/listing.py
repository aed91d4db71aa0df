"""What a reader of a layout found, and the adapter that hands it to the preparation engine."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import Adapter, Case, Failed, Listed, Split
from vividmed.data.raw.case import SPLITS
from vividmed.data.raw.splits import assign_splits
from vividmed.data.schema import RowKind
from vividmed.errors import VividMedError

DEFAULT_RATIOS: Mapping[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Shares of the patients for data without splits of its own."""

_SUM_TOLERANCE = 0.005


@dataclass(frozen=True, order=True)
class RefusedRow:
    """A row of a table, or a file of reports, that cannot be used.

    Attributes:
        row: number as a spreadsheet shows it (the header is row 1), or the line of a JSON Lines file; 0 for a whole file.
        column: column whose content is the reason; empty if it is the row as a whole.
        reason: what is wrong and what is needed, in one line.
        file: name of the file, if there are several.
    """

    row: int
    column: str
    reason: str
    file: str = ""

    @property
    def place(self) -> str:
        """File and row, as messages name them."""
        return ": ".join([*([self.file] if self.file else []), *([f"row {self.row}"] if self.row else [])])

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.place}{column}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class OwnListing:
    """Cases of one's own data.

    Attributes:
        row_kind: kind of the rows that the cases become.
        origin: folder that the images lie in.
        cases: cases, and what is left out or cannot be used.
        modalities: modalities that occur.
        has_splits: whether the data states splits.
        has_patients: whether the data names patients; otherwise each image or case counts as one.
        refused: rows of the table that cannot be used.
        table_rows: id of each case to the rows of the table that it was made from.
        image_column: column that named the images, for errors about them.
        notes: what a user should know about how the data was understood.
        overview: lines that describe the data before any work is done.
        preview: lines that show its first rows.
    """

    row_kind: RowKind
    origin: Path
    cases: tuple[Listed, ...]
    modalities: tuple[str, ...] = ()
    has_splits: bool = False
    has_patients: bool = True
    refused: tuple[RefusedRow, ...] = ()
    table_rows: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    image_column: str = ""
    notes: tuple[str, ...] = ()
    overview: tuple[str, ...] = ()
    preview: tuple[str, ...] = ()


class OwnData(Adapter):
    """Private data: access is internal, and nothing made from it may be published.

    Args:
        listing: what a reader of a layout found.
        name: name of the data set: lower case, digits and hyphens.
        command: command that prepares it, for the card.
        ratios: share of the patients in each split, for patients whose split is not stated.
    """

    licence = "internal use only"
    access = "internal"
    redistribute = "no"
    terms = "This is private data of the institution that prepared it."

    def __init__(
        self, listing: OwnListing, *, name: str, command: str, ratios: Mapping[Split, float] | None = None
    ) -> None:
        self.listing = listing
        self.name = self.title = name
        self.command = command
        self.row_kind = listing.row_kind
        self.modalities = listing.modalities
        self.published_split = listing.has_splits
        self.ratios = dict(ratios or DEFAULT_RATIOS)
        self.split_ratios = self.ratios

    def cases(self, origin: Path) -> Iterator[Listed]:
        yield from self.listing.cases
        for refused in self.listing.refused:
            column = f"column {refused.column!r}: " if refused.column else ""
            yield Failed(refused.place, f"{column}{refused.reason}")

    def with_splits(self, splits: Mapping[str, Split]) -> "OwnData":
        """The same data with the split of each patient given, by the key of the patient."""
        cases = tuple(
            replace(case, split=splits[self.patient_key(case)]) if isinstance(case, Case) else case
            for case in self.listing.cases
        )
        return OwnData(
            replace(self.listing, cases=cases), name=self.name, command=self.command, ratios=self.ratios
        )

    def patient_key(self, case: Case) -> str:
        """Key of a patient, who belongs to no other data set."""
        return f"{self.name}:{case.patient}"

    def has_own_patients(self, cases: Any) -> bool:
        """Whether nobody is in another data set too, which is so for private data."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        # Workers process single cases; they need not carry the whole listing.
        return {key: value for key, value in self.__dict__.items() if key != "listing"}


def split_together(data: OwnData, other: OwnData) -> tuple[OwnData, OwnData]:
    """Give the patients of two listings of one data set their splits, so that each is in the same split of both.

    Args:
        data: has all patients.
        other: has some of them.
    """
    stated = [(data.patient_key(case), case.split) for case in data.listing.cases if isinstance(case, Case)]
    splits = assign_splits(stated, ratios=data.ratios)
    return data.with_splits(splits), other.with_splits(splits)


def parse_ratios(text: str) -> dict[Split, float]:
    """Read shares of the patients: ``0.8,0.1,0.1`` (train, validation, test) or ``90:10`` (train, test).

    Returns:
        Shares that add up to 1.

    Raises:
        VividMedError: they are not two or three numbers, one is negative, there is nothing to train on, or fractions do
            not add up to 1.
    """
    parts = [part for part in re.split(r"[,:/;\s]+", text.strip()) if part]
    try:
        numbers = [float(part.removesuffix("%")) for part in parts]
    except ValueError:
        numbers = []
    total = sum(numbers)
    names: tuple[Split, ...] = SPLITS if len(numbers) == 3 else ("train", "test")
    if len(numbers) not in (2, 3) or min(numbers) < 0 or not 0 < total < float("inf") or not numbers[0]:
        raise VividMedError(
            f"--split-ratios {text!r}: give the shares of train, validation and test, such as 0.8,0.1,0.1, "
            "or of train and test"
        )
    if max(numbers) <= 1 and abs(total - 1) > _SUM_TOLERANCE:
        raise VividMedError(f"--split-ratios {text!r}: the shares add up to {total:g}; they must add up to 1")
    shares = {name: number / total for name, number in zip(names, numbers, strict=True)}
    return {split: shares.get(split, 0.0) for split in SPLITS}


def ratios_text(ratios: Mapping[Split, float]) -> str:
    """Ratios as messages show them: ``80 : 10 : 10``."""
    return " : ".join(f"{100 * ratios[split]:g}" for split in SPLITS)


def default_name(text: str) -> str:
    """Name for a data set made from the name of a file or folder."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "own-data"


def check_name(name: str | None, default: str) -> str:
    """A name that no published data set has.

    Args:
        name: given by the user, or None.
        default: used if none is given, after a prefix if a published data set has it.

    Raises:
        VividMedError: the given name has another form, or belongs to a published data set.
    """
    from vividmed.data.known_terms import known_terms

    taken = {
        default_name(text) for terms in known_terms() for text in (terms.name, terms.source or terms.name)
    }
    if name is None:
        return default if default not in taken else f"own-{default}"
    if name != default_name(name):
        raise VividMedError(
            f"--name {name!r}: use lower case, digits and hyphens, such as {default_name(name)!r}"
        )
    if name in taken:
        raise VividMedError(
            f"--name {name}: is the name of a published data set, whose terms differ; choose another"
        )
    return name
