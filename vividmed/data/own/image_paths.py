"""Finds the images that a table names, wherever the table was written."""

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from vividmed.errors import VividMedError

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp",
    ".nii", ".nii.gz", ".dcm", ".dicom", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip",
)  # fmt: skip
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]|^\\\\")
_NUMBER = re.compile(r"\d+(?:\.|$)")
_LEADING_ZEROS = re.compile(r"^0+(?=\d)")
_LONGEST_SHOWN = 200
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ImageFolder:
    """Files and folders below one folder, by the names that tables give them.

    A name may be relative to the folder, absolute, or a path of the machine on which the table was written, also with
    drives and backslashes of Windows: then its last parts are looked for. Endings may be missing, and capitals may
    differ. A bare file name is found in any subfolder if it is the only one. A number may have lost its leading zeros, as
    spreadsheets remove them. Nothing outside the folder is used, except through links that lie in it.

    Args:
        folder: folder of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[Path, _Names] = {}

    def find(self, name: str) -> Path:
        """Path of an image.

        Raises:
            VividMedError: there is none, there are several, or the name leads out of the folder. The message does not
                name the table, which the caller knows.
        """
        if _REMOTE.match(name) and not name.lower().startswith("file://"):
            raise VividMedError(
                f"{_shown(name)} is an address; download the image into {self.folder} and name the file"
            )
        if "\0" in name:
            raise VividMedError("contains a NUL byte; correct the name")
        for variant in _variants(name):
            if (found := self._find(variant, name)) is not None:
                return found
        if "*" in name or "?" in name:
            raise VividMedError(
                f"{_shown(name)} is a pattern; name each file, or the folder of a DICOM series, without wildcards"
            )
        raise VividMedError(
            f"{_shown(name)} is not in {self.folder}; correct the name, or give the folder by --images"
        )

    def _find(self, variant: str, name: str) -> Path | None:
        windows = _DRIVE.match(variant) is not None
        plain = re.sub(r"^[A-Za-z]:/", "/", variant.replace("\\", "/"))
        path = PurePosixPath(os.path.normpath(plain))
        return self._absolute(path, name) if path.is_absolute() or windows else self._relative(path, name)

    def exists(self, name: str) -> bool:
        """Whether :meth:`find` would find an image."""
        try:
            self.find(name)
        except VividMedError:
            return False
        return True

    def _relative(self, path: PurePosixPath, name: str) -> Path | None:
        if ".." in path.parts:
            inside = Path(os.path.normpath(self.folder.absolute() / path))
            if not inside.is_relative_to(self.folder.absolute()):
                raise VividMedError(
                    f"{_shown(name)} leads out of {self.folder}; give a folder that contains all images"
                )
            path = PurePosixPath(inside.relative_to(self.folder.absolute()))
        if not path.parts:
            raise VividMedError(f"{_shown(name)} is not the name of an image")
        found = self._below(path)
        if found is None and path.parts[0] == self.folder.name and len(path.parts) > 1:
            found = self._below(PurePosixPath(*path.parts[1:]))
        return found or (self._anywhere(path, name) if len(path.parts) == 1 else None)

    def _absolute(self, path: PurePosixPath, name: str) -> Path | None:
        """An absolute path below the folder; or, on another machine, its longest end that exists below the folder."""
        for folder in (self.folder.absolute(), self.folder.resolve()):
            if Path(path).is_relative_to(folder) and (
                found := self._below(PurePosixPath(Path(path).relative_to(folder)))
            ):
                return found
        parts = [part for part in path.parts if part != "/"]
        for start in range(len(parts)):
            if (found := self._below(PurePosixPath(*parts[start:]))) is not None:
                return found
        if _exists(Path(path)):
            raise VividMedError(
                f"{_shown(name)} lies outside {self.folder}; give a folder that contains it by --images"
            )
        return None

    def _below(self, path: PurePosixPath) -> Path | None:
        """The path below the folder as written, or with other capitals or an ending added."""
        exact = self.folder / path
        if _exists(exact):
            return exact
        current = self.folder
        for part in path.parts[:-1]:
            step = current / part if (current / part).is_dir() else self._only(current, part.casefold())
            if step is None or not step.is_dir():
                return None
            current = step
        last = path.name.casefold()
        return self._only(current, last) or self._only(current, *(last + ending for ending in ENDINGS))

    def _only(self, folder: Path, *names: str) -> Path | None:
        """The only entry of a folder with one of these names in lower case."""
        if folder not in self._listings:
            listing = self._listings[folder] = _Names()
            try:
                for entry in os.scandir(folder):
                    listing.add(Path(entry.path))
            except OSError:
                pass
        found = self._listings[folder].get(*names)
        if len(found) > 1:
            raise VividMedError(
                f"may be {' or '.join(sorted(path.name for path in found)[:3])} in {folder}; write the name in full"
            )
        return found[0] if found else None

    def _anywhere(self, path: PurePosixPath, name: str) -> Path | None:
        wanted = path.name.casefold()
        found = self._by_name.get(wanted) or self._by_name.get(*(wanted + ending for ending in ENDINGS))
        if len(found) > 1:
            shown = " and ".join(entry.relative_to(self.folder).as_posix() for entry in sorted(found)[:2])
            raise VividMedError(
                f"{_shown(name)} occurs {len(found)} times in {self.folder} ({shown}); write its subfolder too"
            )
        return found[0] if found else None

    @cached_property
    def _by_name(self) -> "_Names":
        """All entries below the folder; made once, for the first name that needs it."""
        index = _Names()
        for root, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for entry in (*folders, *files):
                if not entry.startswith("."):
                    index.add(Path(root, entry))
        return index


class _Names:
    """Entries by name, without case, in Unicode's composed form; numbers also without their leading zeros."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Path]] = {}
        self._numbers: dict[str, list[Path]] = {}

    def add(self, path: Path) -> None:
        if _exists(path):  # not so for a link that leads nowhere
            name = unicodedata.normalize("NFC", path.name).casefold()
            self._exact.setdefault(name, []).append(path)
            if _NUMBER.match(name):
                self._numbers.setdefault(_LEADING_ZEROS.sub("", name), []).append(path)

    def get(self, *names: str) -> list[Path]:
        found = [path for name in names for path in self._exact.get(name, ())]
        return found or [
            path
            for name in names
            if _NUMBER.match(name)
            for path in self._numbers.get(_LEADING_ZEROS.sub("", name), ())
        ]


def _shown(name: str) -> str:
    """A name as errors show it."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}...")


def _variants(name: str) -> Iterator[str]:
    """A name as written, then as it was before programs changed it: quoted, encoded as an address, or as a fraction."""
    plain = re.sub(r"^file://", "", name, flags=re.IGNORECASE)
    tried = set()
    for variant in (
        plain,
        plain.strip("\"'"),
        unquote(plain),
        re.sub(r"^(\d+)\.0$", r"\1", plain),
    ):
        if variant and variant not in tried:
            tried.add(variant)
            yield variant


def stem(path: Path) -> str:
    """Name of an image without its ending, also for ``.nii.gz``."""
    name = path.name
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] or name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
