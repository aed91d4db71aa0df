"""Inputs as a user names them (files, folders, globs, lists) as single scans."""

import csv
import glob
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from vividmed.errors import VividMedError
from vividmed.processing.dicom import is_dicom

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".nii", ".nii.gz")
_LISTS = (".csv", ".txt")
_COLUMNS = ("path", "image", "image_path", "file", "filename", "scan")
_BLOCKS, _BLOCK_BYTES = 16, 4096
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Scan:
    """One image to look at.

    Attributes:
        name: for its results; unique among the scans of a run.
        path: file, or folder of one DICOM series.
    """

    name: str
    path: Path

    def digest(self) -> str:
        """Digest of the sizes of its files and of blocks of them, which tells it from another scan of the same name.

        Raises:
            VividMedError: a file cannot be read.
        """
        digest = hashlib.sha256()
        try:
            for file in sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]:
                if file.is_file() and not file.name.startswith("."):
                    size = file.stat().st_size
                    digest.update(str(size).encode())
                    with file.open("rb") as stream:
                        for block in range(_BLOCKS):
                            stream.seek(block * max(0, size - _BLOCK_BYTES) // (_BLOCKS - 1))
                            digest.update(stream.read(_BLOCK_BYTES))
        except OSError as error:
            raise VividMedError(f"{self.path}: cannot be read ({error.strerror}); check it") from error
        return digest.hexdigest()[:16]


def find_scans(inputs: Iterable[str | Path], *, results: Path | None = None) -> list[Scan]:
    """Expand what a user names.

    A file is one scan. A folder is one scan if it contains a DICOM series. Otherwise it stands for the images and DICOM
    files in it, each of which is a series of its own, and for the scans in its folders. A ``.csv`` or ``.txt`` file
    lists paths, relative to itself: one per line, or in a column named ``path``, ``image``, ``file`` or ``scan``.

    Args:
        inputs: paths and glob patterns.
        results: folder of results, which is not searched where it lies in a folder of scans.

    Raises:
        VividMedError: a path does not exist, a pattern matches nothing, there is no image at all, or a series lies next
            to other scans.
    """
    paths: dict[Path, None] = {}
    for given in inputs:
        found = list(_expand(str(given), frozenset() if results is None else frozenset({results.resolve()})))
        if not found:
            raise VividMedError(
                f"{given}: no image found; give NIfTI, DICOM, PNG or JPEG files, or folders of them"
            )
        paths |= dict.fromkeys(found)
    return [Scan(name, path) for name, path in zip(_names(paths), paths, strict=True)]


def _expand(given: str, inside: frozenset[Path]) -> Iterator[Path]:
    path = Path(given)
    if not path.exists():
        if not glob.has_magic(given):
            raise VividMedError(f"{given}: no such file or folder; check the path")
        for match in sorted(glob.glob(given, recursive=True)):  # noqa: PTH207 (an absolute pattern)
            if Path(match).resolve() not in inside:
                yield from _expand_path(Path(match), inside)
        return
    yield from _expand_path(path, inside)


def _expand_path(path: Path, inside: frozenset[Path]) -> Iterator[Path]:
    """The scans of a path; ``inside`` are the folders and lists that led to it, and those that are left out."""
    if path.is_file():
        if path.name.lower().endswith(_LISTS):
            yield from _listed(path, inside)
        else:
            yield path
        return
    if not path.is_dir():
        raise VividMedError(f"{path}: neither a file nor a folder; give NIfTI, DICOM, PNG or JPEG files")
    entered = inside | {path.resolve()}
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise VividMedError(
            f"{path}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from error
    files = [entry for entry in entries if entry.is_file()]
    images = [file for file in files if file.name.lower().endswith(_IMAGES)]
    others = [file for file in files if file not in images and file.name.upper() != "DICOMDIR"]
    dicom = [file for file in others if is_dicom(file)]
    found = [
        scan
        for folder in entries
        if folder.is_dir() and folder.resolve() not in entered
        for scan in _expand_path(folder, entered)
    ]
    if len(dicom) > 1 and not _are_separate(dicom):
        if images or found:
            raise VividMedError(
                f"{path}: contains a DICOM series next to other scans; give the series a folder of its own"
            )
        yield path
    elif len(dicom) == 1 and not images and not found:
        yield path
    else:
        yield from sorted([*images, *dicom])
        yield from found


def _are_separate(files: list[Path]) -> bool:
    """Whether each DICOM file is a series of its own, as radiographs are."""
    found: set[str] = set()
    for file in files:
        uid = str(
            pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"], force=True).get("SeriesInstanceUID")
        )
        if uid in ("", "None") or uid in found:
            return False
        found.add(uid)
    return True


def _listed(path: Path, inside: frozenset[Path]) -> Iterator[Path]:
    if path.resolve() in inside:
        raise VividMedError(f"{path}: the list names itself; list the paths of scans")
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
        lines = [row for row in csv.reader(text, delimiter=_delimiter(text)) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VividMedError(
            f"{path}: not a readable list of paths ({error}); save it as UTF-8 text"
        ) from error
    header = [name.strip().lower() for name in lines[0]] if lines else []
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    rows = enumerate(lines[1:], start=2) if column is not None else enumerate(lines, start=1)
    for number, row in rows:
        place = column or 0
        listed = path.parent / row[place].strip() if place < len(row) else path.parent
        if not listed.exists() or listed == path.parent:
            raise VividMedError(
                f"{path}: line {number}: no such file or folder ({','.join(row)}); check the path"
            )
        yield from _expand_path(listed, inside | {path.resolve()})


def _delimiter(lines: list[str]) -> str:
    """Column separator of a list: a comma, a semicolon or a tab."""
    header = lines[0].lower() if lines else ""
    for delimiter in (";", "\t"):
        if delimiter in header and any(name.strip(' "') in _COLUMNS for name in header.split(delimiter)):
            return delimiter
    return ","


def _names(paths: Iterable[Path]) -> list[str]:
    """Names after the files, with a number where several are the same."""
    names: list[str] = []
    for path in paths:
        stem = path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        name = _NOT_IN_NAMES.sub("_", stem).strip("._") or "scan"
        unique, number = name, 1
        while unique in names:
            number += 1
            unique = f"{name}-{number}"
        names.append(unique)
    return names
