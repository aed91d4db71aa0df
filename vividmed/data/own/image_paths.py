"""Finds the images that a table names, wherever the table was written."""

import os
import re
from functools import cached_property
from pathlib import Path, PurePosixPath

from vividmed.errors import VividMedError

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp",
    ".nii", ".nii.gz", ".dcm", ".dicom", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip",
)  # fmt: skip
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]|^\\\\")
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ImageFolder:
    """Files and folders below one folder, by the names that tables give them.

    A name may be relative to the folder, absolute, or a path of the machine on which the table was written, also with
    drives and backslashes of Windows: then its last parts are looked for. Endings may be missing, and capitals may
    differ. A bare file name is found in any subfolder if it is the only one. Nothing outside the folder is used.

    Args:
        folder: folder of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path:
        """Path of an image.

        Raises:
            VividMedError: there is none, there are several, or the name leads out of the folder. The message does not
                name the table, which the caller knows.
        """
        if _REMOTE.match(name) and not name.lower().startswith("file://"):
            raise VividMedError(
                f"{name!r} is an address; download the image into {self.folder} and name the file"
            )
        windows = _DRIVE.match(name) is not None
        plain = re.sub(r"^file://", "", name, flags=re.IGNORECASE).replace("\\", "/")
        plain = re.sub(r"^[A-Za-z]:/", "/", plain)
        if "\0" in plain:
            raise VividMedError("contains a NUL byte; correct the name")
        path = PurePosixPath(os.path.normpath(plain))
        found = self._absolute(path, name) if path.is_absolute() or windows else self._relative(path, name)
        if found is None:
            raise VividMedError(
                f"{name!r} is not in {self.folder}; correct the name, or give the folder by --images"
            )
        return found

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
                    f"{name!r} leads out of {self.folder}; give a folder that contains all images"
                )
            path = PurePosixPath(inside.relative_to(self.folder.absolute()))
        if not path.parts:
            raise VividMedError(f"{name!r} is not the name of an image")
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
                f"{name!r} lies outside {self.folder}; give a folder that contains it by --images"
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
            listing: dict[str, list[str]] = {}
            try:
                for entry in os.scandir(folder):
                    listing.setdefault(entry.name.casefold(), []).append(entry.name)
            except OSError:
                pass
            self._listings[folder] = listing
        found = [entry for name in names for entry in self._listings[folder].get(name, ())]
        if len(found) > 1:
            raise VividMedError(
                f"may be {' or '.join(sorted(found)[:3])} in {folder}; write the name in full"
            )
        return folder / found[0] if found else None

    def _anywhere(self, path: PurePosixPath, name: str) -> Path | None:
        wanted = path.name.casefold()
        found = self._by_name.get(wanted) or [
            entry for ending in ENDINGS for entry in self._by_name.get(wanted + ending, ())
        ]
        if len(found) > 1:
            shown = " and ".join(entry.relative_to(self.folder).as_posix() for entry in sorted(found)[:2])
            raise VividMedError(
                f"{name!r} occurs {len(found)} times in {self.folder} ({shown}); write its subfolder too"
            )
        return found[0] if found else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """All entries below the folder by their name in lower case; made once, for the first name that needs it."""
        index: dict[str, list[Path]] = {}
        for root, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for entry in (*folders, *files):
                if not entry.startswith("."):
                    index.setdefault(entry.casefold(), []).append(Path(root, entry))
        return index


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
