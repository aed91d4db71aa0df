"""Step ``rows``: studies to ``grounded_report`` rows, one per image in which something was located."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from vividmed.data.image_grids import with_grids
from vividmed.data.pseudo_labels.folders import ROWS_NOTES
from vividmed.data.pseudo_labels.localizing import NOT_USABLE, Localizing, encoded_images
from vividmed.data.pseudo_labels.sources import Source
from vividmed.data.pseudo_labels.steps import write_table
from vividmed.data.pseudo_labels.study import USABLE, Place, Study, TaggedPhrase, digest
from vividmed.data.schema import numbered, plain_target, prepared_schema, validate_row
from vividmed.data.terms import write_terms
from vividmed.errors import VividMedError
from vividmed.files import alone_in, write_atomically

_VERSION = 4
SHARD_STUDIES = 100
Row = dict[str, Any]
Facts = dict[str, Any]


@dataclass(frozen=True)
class RowsShard:
    """Studies of one split that one file will contain."""

    name: str
    split: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RowsResult:
    """Result of the step.

    Attributes:
        output: folder of the data set.
        rows: number of rows by split.
        patients: number of patients by split.
        modalities: number of rows by modality and split.
        targets: number of rows by target and split.
        phrases: number of marked phrases, and of those with a place.
        left_out: number of studies without a row by reason.
        history: notes of the steps, oldest first.
        worked_on: number of studies that this run worked on.
    """

    output: Path
    rows: dict[str, int]
    patients: dict[str, int]
    modalities: dict[str, dict[str, int]]
    targets: dict[str, dict[str, int]]
    phrases: tuple[int, int]
    left_out: dict[str, int]
    history: list[dict[str, Any]]
    worked_on: int


@dataclass(frozen=True)
class RowsPlan:
    """The step, divided into shards that any process can finish on its own.

    Attributes:
        source: studies after ``localize`` or ``review``.
        output: folder of the data set.
        reader: reads the rows that the studies come from.
        shard_studies: number of studies per file.
    """

    source: Source
    output: Path
    reader: Localizing
    shard_studies: int = SHARD_STUDIES
    name: str = "rows"

    @property
    def logs(self) -> Path:
        """Folder for the logs of executors."""
        return self.output / ROWS_NOTES / "executor"

    @cached_property
    def shards(self) -> list[RowsShard]:
        """Shards in order, the splits one after the other."""
        by_split: dict[str, list[int]] = defaultdict(list)
        for start in range(0, len(self.source), 1000):
            for number, study in enumerate(self.source.load(start, start + 1000), start=start):
                by_split[study.split].append(number)
        shards = []
        for split, numbers in by_split.items():
            parts = [numbers[i : i + self.shard_studies] for i in range(0, len(numbers), self.shard_studies)]
            for place, part in enumerate(parts):
                shards.append(RowsShard(f"{split}-{place:05d}-of-{len(parts):05d}", split, tuple(part)))
        return shards

    def work_on(self, shard: RowsShard, *, progress: Callable[[int], object] | None = None) -> int:
        """Write a shard, unless it is there and its studies have not changed.

        Returns:
            Number of studies worked on.
        """
        first, last = shard.numbers[0], shard.numbers[-1]
        loaded = dict(enumerate(self.source.load(first, last + 1), start=first))
        studies = [loaded[number] for number in shard.numbers]
        key = digest([_VERSION, [study.digest() for study in studies]])
        note = _read_note(self._note(shard))
        path = self._file(shard)
        current = note is not None and note["key"] == key and note["size"] == _size(path)
        if progress and current:
            progress(len(studies))
        if current:
            return 0
        rows: list[Row] = []
        facts: list[Facts] = []
        left_out = Counter[str]()
        for study in studies:
            (source_row,) = self.reader.rows([study])
            made = list(study_rows(study, source_row))
            rows += made
            facts += [describe(row) for row in made]
            if not made:
                left_out[_reason(study)] += 1
            if progress:
                progress(1)
        # Marks the folder as one of this step before anything that others might have written.
        (self.output / ROWS_NOTES).mkdir(parents=True, exist_ok=True)
        if rows:
            features = prepared_schema("grounded_report").arrow_schema
            write_table(path, pa.Table.from_pylist(rows, schema=features))
        else:
            path.unlink(missing_ok=True)
        content = {"key": key, "size": _size(path), "rows": facts, "left_out": dict(left_out)}
        write_atomically(self._note(shard), json.dumps(content) + "\n")
        return len(studies)

    def finish(self, worked_on: int) -> RowsResult:
        """Write the terms, and collect what the card says.

        Raises:
            VividMedError: a shard is missing, or there is no row at all.
        """
        names = {shard.name for shard in self.shards}
        for path in (self.output / "data").glob("*.parquet"):
            if path.stem not in names:
                path.unlink()
        facts: dict[str, list[Facts]] = defaultdict(list)
        left_out = Counter[str]()
        for shard in self.shards:
            note = _read_note(self._note(shard))
            if note is None:
                raise VividMedError(
                    f"{self.output}: shard {shard.name} is not finished; run the command again"
                )
            facts[shard.split] += note["rows"]
            left_out.update(note["left_out"])
        facts = defaultdict(list, {split: rows for split, rows in facts.items() if rows})
        if not facts:
            reasons = ", ".join(f"{count}: {reason}" for reason, count in left_out.items())
            raise VividMedError(f"{self.output}: no study gives a row ({reasons}); look at the steps before")
        write_terms(self.output, self.source.terms)
        every = [row for rows in facts.values() for row in rows]
        return RowsResult(
            output=self.output,
            rows={split: len(rows) for split, rows in facts.items()},
            patients={split: len({row["patient"] for row in rows}) for split, rows in facts.items()},
            modalities=_by_split(facts, lambda row: [row["modality"]]),
            targets=_by_split(facts, lambda row: row["targets"]),
            phrases=(sum(row["phrases"] for row in every), sum(row["located"] for row in every)),
            left_out=dict(sorted(left_out.items())),
            history=self.source.history,
            worked_on=worked_on,
        )

    def _file(self, shard: RowsShard) -> Path:
        return self.output / "data" / f"{shard.name}.parquet"

    def _note(self, shard: RowsShard) -> Path:
        return self.output / ROWS_NOTES / f"{shard.name}.json"


def write_rows(
    source: Source,
    output: Path,
    reader: Localizing,
    *,
    shard_studies: int = SHARD_STUDIES,
    progress: Callable[[int], object] | None = None,
) -> RowsResult:
    """Write the data set in this process; safe to interrupt.

    Args:
        source: studies after ``localize`` or ``review``.
        output: folder of the data set.
        reader: reads the rows that the studies come from.
        shard_studies: number of studies per file.
        progress: called with the number of studies that were finished, again and again.

    Raises:
        VividMedError: there is no row, or the folder cannot be written.
    """
    plan = RowsPlan(source, output, reader, shard_studies)
    with alone_in(output):
        return plan.finish(sum(plan.work_on(shard, progress=progress) for shard in plan.shards))


def study_rows(study: Study, source_row: Row) -> Iterator[Row]:
    """Rows of a study: one for each image with a place that counts, or one without places for a sound study of one image.

    Reports without a place, such as those of normal images, teach a model when to mark nothing. Phrases that count stay marked; those whose place does not count, or was not found, have no target.

    Args:
        study: after ``localize`` or ``review``.
        source_row: the row that it comes from, images encoded.
    """
    images = encoded_images(source_row)
    pictures = len(source_row["images"])
    phrases = [phrase for phrase in study.phrases if phrase.verdict in USABLE and phrase.status == "present"]
    names = _names(phrases)
    marked, cursor = "", 0
    for phrase in phrases:
        marked += f"{study.text[cursor : phrase.start]}<p>{phrase.text}</p>"
        cursor = phrase.end
    marked += study.text[cursor:]
    for number, image in enumerate(images):
        located: dict[str, list[Place]] = defaultdict(list)
        for place in study.places:
            query = (place.target, place.side)
            if place.image == number and place.verdict in USABLE and query in names:
                located[names[query]].append(place)
        if not located and not (len(images) == 1 and _says_enough(study)):
            continue
        row = with_grids(
            {
                "id": study.id if len(images) == 1 else f"{study.id}_{number}",
                "patient": study.patient,
                "images": [image] if number < pictures else [],
                "volumes": [image] if number >= pictures else [],
                "modality": study.modality,
                "report": marked,
                "phrases": _phrases(phrases, names, located),
                "masks": [
                    {**place.packed, "target": name}
                    for name, places in located.items()
                    for place in places
                    if place.label_type == "mask"
                ],
                "boxes": [
                    {"target": name, "box": list(place.box)}
                    for name, places in located.items()
                    for place in places
                    if place.label_type == "box"
                ],
                "incomplete": [],
                "source": study.source,
                "licence": study.licence,
            }
        )
        validate_row("grounded_report", row)
        yield row


def _names(phrases: list[TaggedPhrase]) -> dict[tuple[str, str], str]:
    """Name of each target and side in the row: the target, numbered if its sides are different places."""
    sides: dict[str, list[str]] = defaultdict(list)
    for phrase in phrases:
        if phrase.side not in sides[phrase.target]:
            sides[phrase.target].append(phrase.side)
    return {
        (target, side): target if len(found) == 1 else numbered(target, place)
        for target, found in sides.items()
        for place, side in enumerate(found, start=1)
    }


def _phrases(
    phrases: list[TaggedPhrase], names: dict[tuple[str, str], str], located: dict[str, list[Place]]
) -> list[Row]:
    """Phrases as rows store them."""
    entries = []
    for phrase in phrases:
        name = names[phrase.target, phrase.side]
        targets = [name] if name in located else []
        entries.append({"text": phrase.text, "start": phrase.start, "end": phrase.end, "targets": targets})
    return entries


def _says_enough(study: Study) -> bool:
    """Whether a study is worth a row although nothing was located: the localizer looked, and nothing is in doubt."""
    verdicts = [phrase.verdict for phrase in study.phrases] + [place.verdict for place in study.places]
    looked = not any(reject.reason == NOT_USABLE for reject in study.rejects)
    return bool(study.text) and looked and all(verdict in USABLE for verdict in verdicts)


def describe(row: Row) -> Facts:
    """What the card counts of a row."""
    located = [phrase for phrase in row["phrases"] if phrase["targets"]]
    targets = [plain_target(name) for phrase in located for name in phrase["targets"]]
    return {
        "patient": row["patient"],
        "modality": row["modality"] or "not recorded",
        "targets": sorted(set(targets)),
        "phrases": len(row["phrases"]),
        "located": len(located),
    }


def _reason(study: Study) -> str:
    """Why a study gives no row."""
    if not study.text:
        return "no report"
    if any(reject.reason == NOT_USABLE for reject in study.rejects):
        return NOT_USABLE
    return "nothing was found" if not study.places else "nothing that was found counts"


def _by_split(
    facts: dict[str, list[Facts]], names: Callable[[Facts], list[str]]
) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for split, rows in facts.items():
        for name, number in Counter(name for row in rows for name in names(row)).items():
            counts[name][split] = number
    return dict(counts)


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
