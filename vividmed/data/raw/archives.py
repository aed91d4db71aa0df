"""Files that their owners hand out packed: tables beside their place, single images, and whole data sets.

Names inside an archive are never trusted: one that leads out of its folder refuses the archive before anything of it
is written. Nothing is unpacked but into a temporary folder.
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
_AGAIN = "do not use it, and get it again from its owners"


def unpacked_bytes(path: Path) -> bytes:
    """Content of a table or text, which may lie packed beside its place, as ``<name>.gz`` or ``<name>.zip``.

    Raises:
        FileNotFoundError: There is neither.
        VividMedError: The archive is damaged, or no archive of this file.
    """
    packed = next((p for suffix in (".gz", ".zip") if (p := _with_suffix(path, suffix)).is_file()), None)
    if packed is None or path.exists():
        return path.read_bytes()
    try:
        if packed.suffix == ".gz":
            return gzip.decompress(packed.read_bytes())
        with _opened(packed, largest=_LARGEST_TABLE) as archive:
            names = [name for name in _members(archive) if PurePosixPath(name).name == path.name]
            if len(names) != 1:
                raise VividMedError(
                    f"{packed}: holds {len(names)} files of the name {path.name}; unpack the right one beside it"
                )
            return archive.read(names[0])
    except _BROKEN as error:
        raise _unreadable(packed, error) from error


def read_zipped(path: Path, read: Callable[[Path], MedicalImage]) -> MedicalImage:
    """Read a zip archive that holds one image: a file, or the files of one DICOM series.

    Args:
        path: Of the archive.
        read: Reads the unpacked file or folder.

    Raises:
        VividMedError: The archive is damaged, encrypted or dangerous, or holds no image or several.
    """
    with TemporaryDirectory(prefix="vividmed-") as name:
        folder = Path(name)
        try:
            with _opened(path, largest=_LARGEST_IMAGE) as archive:
                archive.extractall(folder, _members(archive))
        except _BROKEN as error:
            raise _unreadable(path, error) from error
        try:
            image = read(_only_image(folder))
            # The array may be a view of the unpacked file.
            return replace(image, array=image.array.copy(), source=str(path))
        except VividMedError as error:
            raise VividMedError(str(error).replace(str(folder), str(path))) from error


def unpack_hint(origin: Path) -> str:
    """What to do where files are missing but archives lie in the folder or one below; empty where there are none."""
    found = sorted(
        path for level in ("*", "*/*") for path in origin.glob(level) if _ARCHIVE.search(path.name)
    )
    names = [path.relative_to(origin).as_posix() for path in found if path.is_file()]
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    numbered = any(name[-3:].isdigit() for name in names)
    return f"unpack {shown} in place" + (", the numbered parts joined by cat" if numbered else "")


@contextmanager
def _opened(path: Path, *, largest: int) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members are all harmless."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for info in infos:
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in info.filename:
                raise VividMedError(
                    f"{path}: the archive holds {info.filename!r}, which leads out of its folder; {_AGAIN}"
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                raise VividMedError(f"{path}: the archive holds the link {info.filename!r}; {_AGAIN}")
            if info.flag_bits & 1:
                raise VividMedError(f"{path}: the archive is encrypted; unpack it with its password")
        if len({info.filename for info in infos}) < len(infos):
            raise VividMedError(f"{path}: the archive holds two files of one name; {_AGAIN}")
        if (total := sum(info.file_size for info in infos)) > largest:
            raise VividMedError(
                f"{path}: the archive would unpack to {total / 1e9:.1f} GB, more than it should hold; {_AGAIN}"
            )
        yield archive


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Files without the hidden ones that archives made on a Mac bring along."""
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
            f"{folder}: the archive holds {len(images)} images in {len(folders)} folders; make one of a single image "
            "or of a single DICOM series"
        )
    return folders.pop()


def _unreadable(path: Path, error: BaseException) -> VividMedError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return VividMedError(f"{path}: not a readable archive ({reason}); copy it again")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
