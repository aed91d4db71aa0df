"""Look through a folder, before it is pushed, for what points to a person or opens an account."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.errors import VividMedError
from vividmed.hub.identifiers import ACCESS_TOKEN, Identifier, find_identifiers

MAX_FINDINGS = 200
_SHOWN = 5
_TEXT_SUFFIXES = (".md", ".json", ".txt", ".jinja", ".yaml")
# Word lists and tensor names, not prose.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt")

# DICOM keywords of the patient, visit and study modules, and common names of such columns, without punctuation.
_IDENTIFYING_COLUMNS = frozenset(
    [
        "patientname",
        "patientid",
        "patientsname",
        "patientbirthdate",
        "birthdate",
        "dateofbirth",
        "dob",
        "otherpatientids",
        "patientaddress",
        "patienttelephonenumbers",
        "mrn",
        "medicalrecordnumber",
        "hospitalnumber",
        "accessionnumber",
        "studydate",
        "seriesdate",
        "acquisitiondate",
        "contentdate",
        "studydatetime",
        "studyinstanceuid",
        "seriesinstanceuid",
        "sopinstanceuid",
        "referringphysicianname",
        "performingphysicianname",
        "operatorsname",
        "institutionname",
        "institutionaddress",
        "ssn",
        "email",
        "phone",
        "telephone",
        "address",
        "firstname",
        "lastname",
        "surname",
        "fullname",
    ]
)


@dataclass(frozen=True)
class Finding:
    """Something that may identify a person or open an account.

    Attributes:
        identifier: what was found.
        place: file, and line, or column and row (counted from 0 within the file).
    """

    identifier: Identifier
    place: str

    def __str__(self) -> str:
        return f"{self.identifier} in {self.place}"


def scan_files(folder: Path, names: Iterable[str], *, accept: Collection[str] = ()) -> list[Finding]:
    """Scan file names, text files, and the column names and string columns of Parquet files.

    Args:
        folder: that holds the files.
        names: paths of the files relative to ``folder``, with forward slashes.
        accept: texts that a person has looked at and found harmless; access tokens are never accepted.

    Returns:
        Findings in order of file and place, at most :data:`MAX_FINDINGS`.

    Raises:
        VividMedError: if a file cannot be read.
    """
    findings: list[Finding] = []
    for name in names:
        for finding in _scan_file(folder / name, name):
            if finding.identifier.kind == ACCESS_TOKEN or finding.identifier.text not in accept:
                findings.append(finding)
                if len(findings) == MAX_FINDINGS:
                    return findings
    return findings


def check_files(folder: Path, names: Iterable[str], *, accept: Collection[str] = ()) -> None:
    """Refuse a folder in which :func:`scan_files` finds something.

    Raises:
        VividMedError: listing the first findings and the number of all.
    """
    findings = scan_files(folder, names, accept=accept)
    if not findings:
        return
    shown = "; ".join(str(finding) for finding in findings[:_SHOWN])
    more = len(findings) - _SHOWN
    rest = f"; and {'at least ' if len(findings) == MAX_FINDINGS else ''}{more} more" if more > 0 else ""
    raise VividMedError(
        f"{folder} is not pushed, since it may identify a person or open an account: {shown}{rest}. "
        "Remove them, or list the exact texts in `accept` after a look at each"
    )


def _scan_file(path: Path, name: str) -> Iterator[Finding]:
    for identifier in find_identifiers(name):
        yield Finding(identifier, f"the file name {name}")
    suffix = PurePosixPath(name).suffix
    if suffix == ".parquet":
        yield from _scan_parquet(path, name)
    elif suffix in _TEXT_SUFFIXES and path.name not in _VOCABULARIES:
        yield from _scan_text(path, name)


def _scan_text(path: Path, name: str) -> Iterator[Finding]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VividMedError(f"{path} cannot be read as UTF-8 text ({error}); mend or remove it") from error
    for number, line in enumerate(lines, start=1):
        for identifier in find_identifiers(line):
            yield Finding(identifier, f"{name}, line {number}")


def _scan_parquet(path: Path, name: str) -> Iterator[Finding]:
    # Parquet comes with the data extra; publishing a model does without it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            leaves = [file.schema.column(index) for index in range(len(file.schema))]
            for part in sorted({part for leaf in leaves for part in leaf.path.split(".")}):
                if re.sub(r"[^a-z]", "", part.lower()) in _IDENTIFYING_COLUMNS:
                    yield Finding(Identifier("identifying column", part), name)
            texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
            row = 0
            # An empty list of columns would still read the file.
            for batch in file.iter_batches(batch_size=256, columns=texts) if texts else ():
                for column, values in zip(batch.schema.names, batch.columns, strict=True):
                    for offset, value in enumerate(values.to_pylist()):
                        for identifier in _identifiers_within(value):
                            yield Finding(identifier, f"{name}, column {column!r}, row {row + offset}")
                row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise VividMedError(f"{path} cannot be read as Parquet ({error}); prepare it again") from error


def _identifiers_within(value: Any) -> Iterator[Identifier]:
    """Identifiers in a string or in the strings of nested lists and structs."""
    if isinstance(value, str):
        yield from find_identifiers(value)
    elif isinstance(value, list):
        for item in value:
            yield from _identifiers_within(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _identifiers_within(item)
