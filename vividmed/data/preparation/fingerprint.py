"""Recognises whether anything that a prepared case was made from has changed."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from vividmed.data.raw.case import Case


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one file.

    Attributes:
        size: size in bytes.
        modified: time of modification in ns; a file of unchanged size and time is not read again.
        sha256: hash of the content, which decides.
    """

    size: int
    modified: int
    sha256: str


def source_files(case: Case) -> list[Path]:
    """All files that a case reads, sorted; folders are listed."""
    paths = [image.path for image in case.images]
    paths += [path for annotation in case.annotations for path in annotation.files()]
    listed: set[Path] = set()
    for path in paths:
        listed.update((p for p in path.iterdir() if p.is_file()) if path.is_dir() else (path,))
    return sorted(listed)


def source_bytes(case: Case) -> int:
    """Total size of the files of a case that exist."""
    try:
        return sum(path.stat().st_size for path in source_files(case) if path.exists())
    except OSError:  # a file that cannot be read fails its case when that is processed
        return 0


def take_fingerprints(files: Iterable[Path], origin: Path) -> dict[str, dict[str, Any]]:
    """Fingerprints of the files that exist, by path below the origin, or by name for files elsewhere."""
    taken: dict[str, dict[str, Any]] = {}
    for path in files:
        if path.is_file():
            stat = path.stat()
            taken[_name(path, origin)] = asdict(Fingerprint(stat.st_size, stat.st_mtime_ns, _sha256(path)))
    return taken


def is_unchanged(files: Iterable[Path], origin: Path, taken: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the files are exactly those of earlier fingerprints."""
    present = {_name(path, origin): path for path in files if path.is_file()}
    if present.keys() != taken.keys():
        return False
    for name, path in present.items():
        stat, old = path.stat(), Fingerprint(**taken[name])
        if stat.st_size != old.size:
            return False
        if stat.st_mtime_ns != old.modified and _sha256(path) != old.sha256:
            return False
    return True


def digest(value: Any, origin: Path) -> str:
    """SHA-256 of the content of a value, the same in every process and for every place of the origin."""
    text = json.dumps(_plain(value, origin), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, origin: Path) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _plain(getattr(value, field.name), origin) for field in fields(value)}
        return [type(value).__name__, named]
    if isinstance(value, Path):
        return _name(value, origin)
    if isinstance(value, functools.partial):
        return [_plain(part, origin) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, Mapping):
        return [[_plain(key, origin), _plain(item, origin)] for key, item in value.items()]
    if isinstance(value, frozenset | set):
        return sorted(_plain(item, origin) for item in value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(item, origin) for item in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _name(path: Path, origin: Path) -> str:
    return path.relative_to(origin).as_posix() if path.is_relative_to(origin) else path.name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
