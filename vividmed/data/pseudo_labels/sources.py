"""Where studies come from: the rows of a prepared data set, or the folder that an earlier step has written."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict

from vividmed.data.loading import load_prepared
from vividmed.data.pseudo_labels.study import Study, from_row
from vividmed.data.raw.report_text import parse_report
from vividmed.data.terms import TERMS_FILE, DatasetTerms, Terms, read_all_terms, row_sources, terms_of_rows
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import parse_grounded_text

STEP_FILE = "step.json"
STUDIES = "studies"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_READ_AT_ONCE = 1000
_COLUMNS = ("id", "patient", "modality", "source", "licence")
_KINDS_OF_REPORTS = ("report", "caption")


class Source(ABC):
    """Studies by number, in an order that does not change."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, start: int, stop: int) -> list[Study]:
        """Studies ``start`` to ``stop``."""

    @property
    @abstractmethod
    def terms(self) -> list[DatasetTerms]:
        """Terms of the data sets that the studies come from."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """What earlier steps noted about themselves, oldest first."""
        return []


def open_source(place: str, *, known: Iterable[Terms] = (), limit: int | None = None) -> Source:
    """Open the folder of a step, or a prepared data set.

    Args:
        place: folder, or Hub repository.
        known: terms known independently of the data, see :func:`vividmed.data.terms.terms_of_rows`.
        limit: use only the first studies.

    Raises:
        VividMedError: there are no studies, or they cannot be read.
    """
    if not Path(place).exists() and not _REPOSITORY.fullmatch(place):
        raise VividMedError(
            f"--input {place}: no such folder; give a prepared folder, or a repository as namespace/name"
        )
    source: Source = (
        StepFolder(Path(place)) if (Path(place) / STEP_FILE).is_file() else PreparedRows(place, tuple(known))
    )
    if not len(source):
        raise VividMedError(f"{place}: contains no study; give rows with reports")
    return source if limit is None else _First(source, limit)


class StepFolder(Source):
    """Studies that a finished step has written.

    Args:
        folder: folder of the step.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = read_note(folder)
        self._files = sorted((folder / STUDIES).glob("*.parquet"))
        self._sizes = [_rows(path) for path in self._files]
        if sum(self._sizes) != self.note.get("studies"):
            raise VividMedError(
                f"{folder}: contains {sum(self._sizes)} of {self.note.get('studies')} studies; run its step again"
            )

    def __len__(self) -> int:
        return sum(self._sizes)

    def load(self, start: int, stop: int) -> list[Study]:
        found: list[Study] = []
        first = 0
        for path, size in zip(self._files, self._sizes, strict=True):
            if first < stop and first + size > start:
                found += read_studies(path)[max(0, start - first) : stop - first]
            first += size
        return found

    @property
    def terms(self) -> list[DatasetTerms]:
        return read_all_terms(self.folder)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [*self.note.get("history", ()), {k: v for k, v in self.note.items() if k != "history"}]


class PreparedRows(Source):
    """Reports of a prepared data set, of kind ``vision_language`` or ``grounded_report``; no image is read.

    Markers of phrases are removed, whoever set them.

    Args:
        place: folder or Hub repository.
        known: terms known independently of the data.
    """

    def __init__(self, place: str, known: tuple[Terms, ...] = ()) -> None:
        folder = Path(place)
        self.place = str(folder.resolve()) if folder.is_dir() else place
        self.known = known
        loaded = load_prepared(place, what=f"--input {place}")
        self.splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({"train": loaded})
        columns = next(iter(self.splits.values())).column_names
        self._text = next((name for name in ("report", "messages") if name in columns), "")
        if not self._text or (missing := set(_COLUMNS) - set(columns)):
            absent = "'report' or 'messages'" if not self._text else repr(min(missing))
            raise VividMedError(
                f"--input {place}: lacks the column {absent}; give vision_language or grounded_report rows"
            )
        self._starts: dict[str, int] = {}
        total = 0
        for split, rows in self.splits.items():
            self._starts[split] = total
            total += len(rows)
        self._total = total

    def __len__(self) -> int:
        return self._total

    @cached_property
    def _light(self) -> dict[str, Dataset]:
        columns = [*_COLUMNS, self._text]
        return {
            split: rows.select_columns(columns + [n for n in ("kind", "plane") if n in rows.column_names])
            for split, rows in self.splits.items()
        }

    def load(self, start: int, stop: int) -> list[Study]:
        found = []
        for split, rows in self._light.items():
            low, high = (min(max(0, edge - self._starts[split]), len(rows)) for edge in (start, stop))
            for begin in range(low, high, _READ_AT_ONCE):
                part = rows.with_format("arrow")[begin : min(high, begin + _READ_AT_ONCE)].to_pylist()
                found += [self._study(row, split, number) for number, row in enumerate(part, start=begin)]
        return found

    def _study(self, row: Mapping[str, Any], split: str, number: int) -> Study:
        text = report_of_row(row)
        return Study(
            id=row["id"] or "",
            patient=row["patient"] or "",
            modality=row["modality"] or "",
            source=row["source"] or "",
            licence=row["licence"] or "",
            plane=row.get("plane") or "",
            split=split,
            dataset=self.place,
            row=number,
            report=text,
            text=text,
        )

    @property
    def terms(self) -> list[DatasetTerms]:
        stated = read_all_terms(Path(self.place)) if (Path(self.place) / TERMS_FILE).is_file() else []
        sources = {source for rows in self.splits.values() for source in row_sources(rows)}
        return terms_of_rows(sources, stated=stated, known=self.known)


@dataclass
class _First(Source):
    """The first studies of another source."""

    source: Source
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def load(self, start: int, stop: int) -> list[Study]:
        return self.source.load(start, min(stop, self.limit))

    @property
    def terms(self) -> list[DatasetTerms]:
        return self.source.terms

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.source.history


def report_of_row(row: Mapping[str, Any]) -> str:
    """The report of a row without markers; empty if the row has none."""
    if "report" in row:
        return _unmarked(row["report"] or "")
    answers = [turn["content"] or "" for turn in row["messages"] or () if turn["role"] == "assistant"]
    written = [_unmarked(answer) for answer in answers]
    headed = next((text for text in written if parse_report(text)), None)
    if headed is not None:
        return headed
    kinds = (row.get("kind") or "").split("+")
    return next((text for kind, text in zip(kinds, written, strict=False) if kind in _KINDS_OF_REPORTS), "")


def _unmarked(text: str) -> str:
    """The text without markers; removing one may leave another (``<<p>p>``)."""
    while (clean := parse_grounded_text(text).text) != text:
        text = clean
    return text


def read_studies(path: Path) -> list[Study]:
    """Studies of one Parquet file of a step."""
    try:
        return [from_row(row) for row in pq.read_table(path).to_pylist()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise VividMedError(f"{path}: cannot be read ({reason}); delete it and run its step again") from error


def read_note(folder: Path) -> dict[str, Any]:
    """What a finished step noted about itself.

    Raises:
        VividMedError: the note is missing or damaged.
    """
    path = folder / STEP_FILE
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(note, dict) or "step" not in note:
            raise ValueError("no step is named")
    except (OSError, ValueError) as error:
        raise VividMedError(f"{path}: cannot be read ({error}); run the step again") from error
    return note


def encoded_row(rows: Dataset, number: int) -> dict[str, Any]:
    """One row with its images encoded."""
    return rows.with_format("arrow")[number].to_pylist()[0]


def select_rows(splits: Mapping[str, Dataset], studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Rows that studies come from, images encoded.

    Raises:
        VividMedError: the data set has changed since the first step read it.
    """
    found = []
    for study in studies:
        rows = splits.get(study.split)
        row = encoded_row(rows, study.row) if rows is not None and study.row < len(rows) else {"id": None}
        if row["id"] != study.id:
            raise VividMedError(
                f"{study.dataset}: row {study.row} of {study.split!r} is {row['id']!r}, not {study.id!r} as when the first "
                "step read it; start again with the first step"
            )
        found.append(row)
    return found


def _rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError) as error:
        raise VividMedError(f"{path}: is damaged ({error}); delete it and run its step again") from error
