"""Packed files: tables whose archive lies in their place, single images, and whole data sets.

Names inside an archive are never trusted: one that leads out of its folder makes the whole archive refused before any
of it is written. Archives are unpacked into temporary folders only.
"""

import gzip
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from vividmed.errors import VividMedError
from vividmed.processing.dicom import is_dicom
from vividmed.processing.medical_image import MedicalImage

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
)
_ARCHIVE = re.compile(r"\.(?:zip|tar|tgz|tar\.[gx]z|tar\.bz2|7z|rar)(?:\.\d{3})?$", re.IGNORECASE)
_IMAGE = re.compile(r"\.(?:nii|nii\.gz|nrrd|mha|dcm|dicom|png|jpe?g|tiff?)$", re.IGNORECASE)
_LARGEST_IMAGE = 16 * 2**30
_LARGEST_TABLE = 2**30
_AGAIN = "do not use it; download it again from its owners"


def unpacked_bytes(path: Path) -> bytes:
    """Read a table or text, which may be packed as ``<name>.gz`` or ``<name>.zip`` in its place.

    Raises:
        FileNotFoundError: Neither the file nor an archive of it exists.
        VividMedError: The archive is damaged, too large, or does not contain the file.
    """
    packed = next((p for suffix in (".gz", ".zip") if (p := _with_suffix(path, suffix)).is_file()), None)
    if packed is None or path.exists():
        return path.read_bytes()
    try:
        if packed.suffix == ".gz":
            with gzip.open(packed) as stream:
                content = stream.read(_LARGEST_TABLE + 1)
            if len(content) > _LARGEST_TABLE:
                raise VividMedError(
                    f"{packed}: the archive would unpack to more than {_LARGEST_TABLE / 1e9:.1f} GB, more than a table "
                    f"should; {_AGAIN}"
                )
            return content
        with _opened(packed, largest=_LARGEST_TABLE) as archive:
            names = [name for name in _members(archive) if PurePosixPath(name).name == path.name]
            if len(names) != 1:
                raise VividMedError(
                    f"{packed}: contains {len(names)} files named {path.name}; unpack the right one next to the archive"
                )
            return archive.read(names[0])
    except VividMedError:
        raise
    except _BROKEN as error:
        raise _unreadable(packed, error) from error


def read_zipped(path: Path, read: Callable[[Path], MedicalImage]) -> MedicalImage:
    """Read a zip archive that contains one image: a file, or the files of one DICOM series.

    Args:
        path: of the archive.
        read: reads the unpacked file or folder.

    Raises:
        VividMedError: The archive is damaged, encrypted or dangerous, or does not contain exactly one image.
    """
    with TemporaryDirectory(prefix="vividmed-") as name:
        folder = Path(name)
        try:
            with _opened(path, largest=_LARGEST_IMAGE) as archive:
                archive.extractall(folder, _members(archive))
        except VividMedError:
            raise
        except _BROKEN as error:
            raise _unreadable(path, error) from error
        try:
            image = read(_only_image(folder))
            # The array may be a view of the unpacked file.
            return replace(image, array=image.array.copy(), source=str(path))
        except VividMedError as error:
            raise VividMedError(str(error).replace(str(folder), str(path))) from error


def unpack_hint(origin: Path) -> str:
    """Advice for missing files when the folder, or one of its subfolders, contains archives; empty if none does."""
    found = sorted(
        path for level in ("*", "*/*") for path in origin.glob(level) if _ARCHIVE.search(path.name)
    )
    names = [path.relative_to(origin).as_posix() for path in found if path.is_file()]
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    numbered = any(name[-3:].isdigit() for name in names)
    return f"unpack {shown} in place" + (", after joining the numbered parts with cat" if numbered else "")


@contextmanager
def _opened(path: Path, *, largest: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive after checking that all of its members are harmless."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for info in infos:
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in info.filename:
                raise VividMedError(
                    f"{path}: the archive contains {info.filename!r}, which leads out of its folder; {_AGAIN}"
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                raise VividMedError(f"{path}: the archive contains the link {info.filename!r}; {_AGAIN}")
            if info.flag_bits & 1:
                raise VividMedError(f"{path}: the archive is encrypted; unpack it with its password")
        if len({info.filename for info in infos}) < len(infos):
            raise VividMedError(f"{path}: the archive contains two files with the same name; {_AGAIN}")
        if (total := sum(info.file_size for info in infos)) > largest:
            raise VividMedError(
                f"{path}: the archive would unpack to {total / 1e9:.1f} GB, more than it should; {_AGAIN}"
            )
        yield archive


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Names of the files, without the hidden ones that macOS adds to archives."""
    return [
        info.filename
        for info in archive.infolist()
        if not info.is_dir()
        and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts)
    ]


def _only_image(folder: Path) -> Path:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "DICOMDIR"]
    images = [path for path in found if _IMAGE.search(path.name) or is_dicom(path)]
    if len(images) == 1:
        return images[0]
    folders = {path.parent for path in images}
    if len(folders) != 1 or not all(is_dicom(path) for path in images):
        raise VividMedError(
            f"{folder}: the archive contains {len(images)} images in {len(folders)} folders; give an archive of one image "
            "or of one DICOM series"
        )
    return folders.pop()


def _unreadable(path: Path, error: BaseException) -> VividMedError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return VividMedError(f"{path}: not a readable archive ({reason}); copy it again")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
