"""Writes the Parquet files of a prepared data set, complete or not at all, each with a note of its sources."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vividmed.data.preparation.case_store import (
    CaseRecord,
    move_case,
    read_case,
    read_record,
    write_case,
)
from vividmed.data.preparation.plan import PlannedCase, Shard
from vividmed.data.schema import prepared_schema
from vividmed.errors import VividMedError
from vividmed.files import sync_folder, write_atomically

_ROW_GROUP_BYTES = 100_000_000


class ShardStore:
    """Keeps the shards of a data set, their notes, and the cases of unfinished shards.

    Args:
        output: folder of the data set.
        origin: folder of the original data set.
        row_kind: kind of the rows.
        retry_failed: process cases again that failed, even if their files have not changed.
    """

    def __init__(self, output: Path, origin: Path, row_kind: str, *, retry_failed: bool = False) -> None:
        self.data = output / "data"
        self.notes = output / ".preparation"
        self.origin = origin
        self.row_kind = row_kind
        self.retry_failed = retry_failed

    def file(self, name: str) -> Path:
        """The Parquet file of a shard; absent if the shard has no row."""
        return self.data / f"{name}.parquet"

    def pending(self, name: str) -> Path:
        """Folder of the finished cases of an unfinished shard."""
        return self.notes / "cases" / name

    def records(self, name: str) -> list[CaseRecord] | None:
        """Records of a finished shard's cases; None if it is not finished."""
        try:
            note = json.loads(self._note(name).read_text(encoding="utf-8"))
            records, noted_size = [CaseRecord(**record) for record in note["cases"]], note["size"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise VividMedError(
                f"{self._note(name)}: is damaged ({error}); delete it and run again"
            ) from error
        size = self.file(name).stat().st_size if self.file(name).exists() else None
        return records if noted_size == size else None

    def to_do(self, shard: Shard) -> list[PlannedCase] | None:
        """Cases of a shard that need work; None if the shard is finished.

        A finished shard with changed or new cases is taken apart again; its other cases are kept.
        """
        records = self.records(shard.name)
        if records is not None:
            known = {record.id: record for record in records}
            current = [self._is_current(item, known.get(item.case.id)) for item in shard.cases]
            if all(current) and len(known) == len(current):
                return None
            self._open_again(
                shard, [known[i.case.id] for i, ok in zip(shard.cases, current, strict=True) if ok]
            )
            return [item for item, ok in zip(shard.cases, current, strict=True) if not ok]
        stored = ((item, read_record(self.pending(shard.name), item.case.id)) for item in shard.cases)
        return [item for item, record in stored if not self._is_current(item, record)]

    def adopt(self, name: str, shards: list[Shard]) -> None:
        """Move cases that were stored under another name to the shards they belong to."""
        for shard in shards:
            for item in shard.cases:
                move_case(self.pending(name), self.pending(shard.name), item.case.id)

    def write(self, shard: Shard) -> None:
        """Join the stored cases of a shard into its Parquet file."""
        records: list[CaseRecord] = []
        self.data.mkdir(parents=True, exist_ok=True)
        target = self.file(shard.name)
        aside = target.with_suffix(".parquet.tmp")
        features = prepared_schema(self.row_kind).arrow_schema
        group: list[pa.Table] = []
        rows = size = 0
        # Volumes are stored raw and compressed by Parquet; level 1 is the fastest to write.
        with pq.ParquetWriter(aside, features, compression="zstd", compression_level=1) as writer:
            for item in shard.cases:
                record, table = read_case(self.pending(shard.name), item.case.id)
                records.append(record)
                rows += table.num_rows
                size += table.nbytes
                group.append(table.replace_schema_metadata(features.metadata))
                if size > _ROW_GROUP_BYTES:
                    writer.write_table(pa.concat_tables(group).combine_chunks())
                    group, size = [], 0
            if any(table.num_rows for table in group):
                writer.write_table(pa.concat_tables(group).combine_chunks())
        if rows:
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())
            aside.rename(target)
        else:
            aside.unlink()
            target.unlink(missing_ok=True)
        sync_folder(self.data)
        note = {
            "size": target.stat().st_size if rows else None,
            "cases": [asdict(record) for record in records],
        }
        write_atomically(self._note(shard.name), json.dumps(note, indent=1) + "\n")
        shutil.rmtree(self.pending(shard.name), ignore_errors=True)

    def tidy(self, shards: list[Shard]) -> None:
        """Remove all shards except these, and everything that interrupted runs left."""
        names = {shard.name for shard in shards}
        for path in [*self.data.glob("*.parquet*"), *self.notes.glob("*-*.json")]:
            if path.name.removesuffix(path.suffix) not in names:
                path.unlink()
        for folder in (self.notes, self.data, self.data.parent):
            for path in folder.glob(".*.partial"):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.notes / "cases", ignore_errors=True)

    def _is_current(self, item: PlannedCase, record: CaseRecord | None) -> bool:
        if record is None or (record.error is not None and self.retry_failed):
            return False
        return record.is_current(item, self.origin)

    def _open_again(self, shard: Shard, kept: list[CaseRecord]) -> None:
        """Store the rows of a finished shard as cases again, and remove its note."""
        counts = {record.id: len(record.rows) for record in self.records(shard.name) or ()}
        by_id = {record.id: record for record in kept}
        folder = self.pending(shard.name)
        if self.file(shard.name).exists():
            with pq.ParquetFile(self.file(shard.name)) as file:
                rows = (row for batch in file.iter_batches(batch_size=1) for row in batch.to_pylist())
                for key, count in counts.items():
                    own = [next(rows) for _ in range(count)]
                    if key in by_id:
                        write_case(folder, self.row_kind, by_id[key], own)
        self._note(shard.name).unlink()

    def _note(self, name: str) -> Path:
        return self.notes / f"{name}.json"
