"""Keeps each finished case in a file of its own until the shard it belongs to is complete.

A file is an Arrow table of the case's rows. Its metadata says which files were read and, for a case that failed, why.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.burnt_in import says_burnt_in
from vividmed.data.preparation.case_rows import Processing, Row, case_rows
from vividmed.data.preparation.fingerprint import is_unchanged, source_files, take_fingerprints
from vividmed.data.preparation.plan import PlannedCase
from vividmed.data.preparation.statistics import describe_row
from vividmed.data.schema import prepared_schema
from vividmed.errors import VividMedError
from vividmed.files import write_atomically

logger = logging.getLogger(__name__)

_RECORD = b"vividmed"


@dataclass
class CaseRecord:
    """Outcome of a processed case.

    Attributes:
        id: id of the case.
        digest: digest of the planned case.
        files: fingerprints of the files that were read, by path below the origin.
        error: why the case has no rows; None if it has.
        rows: statistics of each row.
        warnings: what a user should look at.
        bytes: size of its rows as stored.
    """

    id: str
    digest: str
    files: dict[str, dict[str, Any]]
    error: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bytes: int = 0

    def is_current(self, planned: PlannedCase, origin: Path) -> bool:
        """Whether neither the files of the case nor its processing have changed since."""
        return self.digest == planned.digest and is_unchanged(source_files(planned.case), origin, self.files)


def process_case(
    adapter: Adapter, planned: PlannedCase, origin: Path, processing: Processing, folder: Path
) -> CaseRecord:
    """Make the rows of a case and store them, or the reason why there are none.

    Raises:
        VividMedError: the rows cannot be written.
    """
    case = planned.case
    record = CaseRecord(case.id, planned.digest, {})
    rows: list[Row] = []
    try:
        paths = source_files(case)
        record.files = take_fingerprints(paths, origin)
        rows, warnings = case_rows(adapter, case, processing)
        record.rows = [describe_row(adapter.row_kind, row) for row in rows]
        warnings += [
            f"{path.name}: the file says that text is burnt into the image; check it for names"
            for path in paths
            if says_burnt_in(path)
        ]
        record.warnings = [_relative(warning, origin) for warning in warnings]
    except VividMedError as error:
        record.error = _relative(str(error), origin)
    except Exception as error:  # an unforeseen failure of one case must not end the run
        logger.debug("case %s", case.id, exc_info=True)
        record.error = _relative(f"{type(error).__name__}: {error}", origin)
    if record.error is not None:
        rows, record.rows = [], []
    write_case(folder, adapter.row_kind, record, rows)
    return record


def write_case(folder: Path, row_kind: str, record: CaseRecord, rows: list[Row]) -> None:
    """Store a case and set ``record.bytes``."""
    table = pa.Table.from_pylist(rows, schema=prepared_schema(row_kind).arrow_schema)
    record.bytes = len(_serialise(table))
    table = table.replace_schema_metadata({_RECORD: json.dumps(asdict(record)).encode()})
    write_atomically(_path(folder, record.id), memoryview(_serialise(table)))


def read_record(folder: Path, case_id: str) -> CaseRecord | None:
    """Record of a stored case; None if it is not stored or its file is damaged."""
    try:
        with pa.memory_map(str(_path(folder, case_id))) as source:
            return _record(pa.ipc.open_file(source).schema)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def read_case(folder: Path, case_id: str) -> tuple[CaseRecord, pa.Table]:
    """Record and rows of a stored case."""
    with pa.memory_map(str(_path(folder, case_id))) as source:
        table = pa.ipc.open_file(source).read_all()
    return _record(table.schema), table


def move_case(folder: Path, target: Path, case_id: str) -> None:
    """Move a case to another folder if it is stored."""
    path = _path(folder, case_id)
    if path.exists():
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)


def _serialise(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _record(stored: pa.Schema) -> CaseRecord:
    return CaseRecord(**json.loads((stored.metadata or {})[_RECORD]))


def _path(folder: Path, case_id: str) -> Path:
    return folder / f"{hashlib.sha256(case_id.encode()).hexdigest()[:32]}.arrow"


def _relative(message: str, origin: Path) -> str:
    """The message in one line, with paths relative to the origin."""
    return " ".join(message.replace(f"{origin}{os.sep}", "").split())
