"""Scans files, before they are pushed, for what points to a person or opens an account."""

import html
import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vividmed.errors import VividMedError
from vividmed.hub.embedded_text import embedded_text, json_strings_in, printable_runs, safetensors_text
from vividmed.hub.identifiers import ACCESS_TOKEN, Identifier, find_identifiers

MAX_FINDINGS = 200
_SHOWN = 5
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".webp", ".bmp")
_VOLUME_SUFFIXES = (".nii", ".gz", ".dcm")
# Their keys are words of a language, not names of fields.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")

# DICOM keywords of the patient, visit and study modules, and common names of such columns: letters only.
_IDENTIFYING_FIELDS = frozenset(
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
        "studytime",
        "seriestime",
        "patientbirthtime",
        "requestingphysician",
        "physiciansofrecord",
        "nameofphysiciansreadingstudy",
        "stationname",
        "deviceserialnumber",
        "scandate",
        "examdate",
        "visitdate",
        "admissiondate",
        "dischargedate",
        "reportdate",
        "dateofdeath",
    ]
)


@dataclass(frozen=True)
class Finding:
    """Something that may identify a person or open an account.

    Attributes:
        identifier: what was found.
        place: file, and line, field, or column and row (counted from 0 within the file).
    """

    identifier: Identifier
    place: str

    def __str__(self) -> str:
        return f"{self.identifier} in {self.place}"


def scan_files(folder: Path, names: Iterable[str], *, accept: Collection[str] = ()) -> list[Finding]:
    """Scan files: their names, text, tables with the images in them, and the metadata of every format.

    Args:
        folder: folder of the files.
        names: paths of the files relative to ``folder``, with forward slashes.
        accept: texts that a person has looked at and found harmless; access tokens are never accepted.

    Returns:
        Findings in order of file and place, at most :data:`MAX_FINDINGS`.

    Raises:
        VividMedError: a file cannot be read.
    """
    findings: list[Finding] = []
    for name in names:
        for finding in _scan_file(folder / name, name):
            if finding.identifier.category == ACCESS_TOKEN or finding.identifier.text not in accept:
                findings.append(finding)
                if len(findings) == MAX_FINDINGS:
                    return findings
    return findings


def check_files(
    folder: Path, names: Iterable[str], *, accept: Collection[str] = (), label: str | None = None
) -> None:
    """Refuse a folder in which :func:`scan_files` finds something.

    Args:
        folder: folder of the files.
        names: see :func:`scan_files`.
        accept: see :func:`scan_files`.
        label: what the message calls the folder; its path by default.

    Raises:
        VividMedError: lists the first findings and the number of all, or names a file that cannot be read.
    """
    findings = scan_files(folder, names, accept=accept)
    if not findings:
        return
    shown = "; ".join(str(finding) for finding in findings[:_SHOWN])
    more = len(findings) - _SHOWN
    rest = f"; and {'at least ' if len(findings) == MAX_FINDINGS else ''}{more} more" if more > 0 else ""
    raise VividMedError(
        f"{label or folder}: not pushed, because it may identify a person or open an account: {shown}{rest}. "
        "Remove these, or look at each and accept its exact text (--accept)"
    )


def _scan_file(path: Path, name: str) -> Iterator[Finding]:
    yield from _findings("the file name " + name, name)
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _scan_parquet(path, name)
        elif suffix == ".json":
            yield from _scan_json(path, name)
        elif suffix == ".safetensors":
            with path.open("rb") as file:
                for place, text in safetensors_text(file):
                    yield from _findings(f"{name}, {place}", text)
        elif suffix == ".model":
            for text in printable_runs(path.read_bytes()):
                yield from _findings(name, text.replace("\u2581", " "))
        elif suffix in _IMAGE_SUFFIXES or suffix in _VOLUME_SUFFIXES:
            for place, text in embedded_text(path.read_bytes()):
                yield from _findings(f"{name}, {place}", text)
        else:
            yield from _scan_text(path, name)
    except VividMedError as error:
        raise VividMedError(f"{name}: {error}; repair or remove it") from error
    except OSError as error:
        raise VividMedError(f"{name}: cannot be read ({error.strerror or error})") from error


def _findings(place: str, text: str) -> Iterator[Finding]:
    for identifier in find_identifiers(text):
        yield Finding(identifier, place)
    for field, value in re.findall(r"^([A-Za-z_ ]{2,40}): (.*)", text):
        # A field named for a person's data says all, whatever its value looks like.
        if _is_identifying(field) and value.strip():
            yield Finding(Identifier("identifying field", field), place)


def _is_identifying(field: str) -> bool:
    return re.sub(r"[^a-z]", "", field.lower()) in _IDENTIFYING_FIELDS


def _scan_text(path: Path, name: str) -> Iterator[Finding]:
    lines = _read_text(path).splitlines()
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        for identifier in find_identifiers(html.unescape(line)):
            seen.add(identifier.text)
            yield Finding(identifier, f"{name}, line {number}")
    # Some are broken over two lines.
    for number, pair in enumerate(itertools.pairwise(lines), start=1):
        for identifier in find_identifiers(html.unescape(f"{pair[0][-200:]} {pair[1][:200]}")):
            if identifier.text not in seen and not any(identifier.text in text for text in seen):
                seen.add(identifier.text)
                yield Finding(identifier, f"{name}, line {number}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise VividMedError(f"cannot be read as UTF-8 text ({error})") from error


def _scan_json(path: Path, name: str) -> Iterator[Finding]:
    vocabulary = path.name in _VOCABULARIES
    try:
        # Pairs, for a dictionary would drop repeated keys.
        content = json.loads(_read_text(path), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        if isinstance(error, VividMedError):
            raise
        raise VividMedError(f"cannot be read as JSON ({error})") from error
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        where, value = waiting.pop()
        place = f"{name}, field {where!r}" if where else name
        if isinstance(value, _Pairs):
            for key, item in value:
                if vocabulary:
                    yield from _findings(place, key.replace("\u2581", " ").replace("\u0120", " "))
                elif not isinstance(item, _Pairs | list):
                    yield from _findings(f"{name}, field {f'{where}.{key}'.lstrip('.')!r}", f"{key}: {item}")
                    continue
                else:
                    yield from _findings(place, key)
            waiting += [(f"{where}.{key}".lstrip("."), item) for key, item in reversed(value)]
        elif isinstance(value, list):
            waiting += [(where, item) for item in reversed(value)]
        elif isinstance(value, str):
            yield from _findings(place, value.replace("\u2581", " ").replace("\u0120", " "))
            for text in json_strings_in(value):
                yield from _findings(place, text)


class _Pairs(list[tuple[str, Any]]):
    """Keys and values of a JSON object, in order."""


def _scan_parquet(path: Path, name: str) -> Iterator[Finding]:
    # Parquet comes with the data extra; publishing a model does without it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from _scan_parquet_metadata(file, name)
            leaves = [file.schema.column(index) for index in range(len(file.schema))]
            for part in sorted({part for leaf in leaves for part in leaf.path.split(".")}):
                yield from _findings(f"{name}, the name of a column", part)
                if _is_identifying(part):
                    yield Finding(Identifier("identifying column", part), name)
            for leaf in leaves:
                if leaf.logical_type.type in ("DATE", "TIMESTAMP") or leaf.physical_type == "INT96":
                    yield Finding(Identifier("column of dates", leaf.path), name)
            binary = [leaf for leaf in leaves if leaf.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")]
            texts = [leaf.path for leaf in binary if leaf.logical_type.type in ("STRING", "JSON", "ENUM")]
            blobs = [leaf.path for leaf in binary if leaf.logical_type.type == "NONE"]
            # Images are large: few rows at a time.
            for columns, batch_size in ((texts, 256), (blobs, 4)):
                row = 0
                # An empty list of columns would still read the file.
                for batch in file.iter_batches(batch_size=batch_size, columns=columns) if columns else ():
                    for column, values in zip(batch.schema.names, batch.columns, strict=True):
                        for offset, value in enumerate(values.to_pylist()):
                            yield from _scan_value(value, f"{name}, column {column!r}, row {row + offset}")
                    row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise VividMedError(f"cannot be read as Parquet ({' '.join(str(error).split())})") from error


def _scan_parquet_metadata(file: Any, name: str) -> Iterator[Finding]:
    """Key-value pairs of the file and of its columns, and the writer's name."""
    yield from _findings(f"{name}, created_by", file.metadata.created_by or "")
    tables = [file.metadata.metadata or {}, file.schema_arrow.metadata or {}]
    waiting = list(file.schema_arrow)
    while waiting:
        field = waiting.pop()
        tables.append(field.metadata or {})
        waiting += [field.type.field(index) for index in range(field.type.num_fields)]
    for key, value in (pair for table in tables for pair in table.items()):
        place = f"{name}, metadata {key.decode(errors='replace')!r}"
        text = value.decode("utf-8", errors="replace")
        if key == b"ARROW:schema":
            # The schema once more, encoded; its own metadata is read above.
            continue
        yield from _findings(place, f"{key.decode(errors='replace')}: {text}")
        for string in json_strings_in(text):
            yield from _findings(place, string)


def _scan_value(value: Any, place: str) -> Iterator[Finding]:
    """Findings in a string or image, or in those of nested lists and structs."""
    if isinstance(value, str):
        yield from _findings(place, value)
        for text in json_strings_in(value):
            yield from _findings(place, text)
    elif isinstance(value, bytes):
        try:
            for kind, text in embedded_text(value):
                yield from _findings(f"{place}, {kind}", text)
        except VividMedError as error:
            raise VividMedError(f"{place.partition(', ')[2]}: an image {error}") from error
    elif isinstance(value, list):
        for item in value:
            yield from _scan_value(item, place)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _scan_value(item, place)
