"""Scans to try the page with: those of a folder, and small ones that installed packages contain."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vividmed.inference.scans import find_scans


@dataclass(frozen=True)
class Sample:
    """A scan to try.

    Attributes:
        name: what people see.
        paths: its file, or all files of its series.
    """

    name: str
    paths: tuple[Path, ...]


def find_samples(folder: Path | None) -> list[Sample]:
    """List the samples.

    Args:
        folder: of more scans, named after their files.

    Raises:
        VividMedError: the folder has no scans.
    """
    samples = [] if folder is None else [_of_folder(scan.name, scan.path) for scan in find_scans([folder])]
    for name, package, place in _PACKAGED:
        path = place(package)
        if path is not None and path.is_file():
            samples.append(Sample(name, (path,)))
    return samples


def _of_folder(name: str, path: Path) -> Sample:
    if path.is_file():
        return Sample(name, (path,))
    return Sample(name, tuple(sorted(entry for entry in path.iterdir() if entry.is_file())))


def _inside(relative: str) -> Callable[[str], Path | None]:
    def locate(package: str) -> Path | None:
        found = importlib.util.find_spec(package)
        return None if found is None or found.origin is None else Path(found.origin).parent / relative

    return locate


_PACKAGED: tuple[tuple[str, str, Callable[[str], Path | None]], ...] = (
    ("Head MR volume (nibabel)", "nibabel", _inside("tests/data/anatomical.nii")),
    ("CT slice (pydicom)", "pydicom", _inside("data/test_files/CT_small.dcm")),
    ("MR slice (pydicom)", "pydicom", _inside("data/test_files/MR_small.dcm")),
)
