"""Packed originals are read if they are one file; archives of many files have to be unpacked first."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import Phantom, write_table
from vividmed.data.preparation.integrity import count_files
from vividmed.data.raw.archives import unpack_hint
from vividmed.data.raw.documents import read_text
from vividmed.data.raw.images import read_original
from vividmed.data.raw.tables import read_table
from vividmed.errors import VividMedError


def zipped(path: Path, *files: Path, root: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(root))
    return path


def packed_table(folder: Path, suffix: str) -> Path:
    """A table of which only the packed form is there."""
    path = write_table(folder / "master_table.csv", [{"StudyID": "1", "split": "test"}])
    if suffix == ".gz":
        path.with_name("master_table.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    else:
        zipped(path.with_name("master_table.csv.zip"), path, root=folder)
    path.unlink()
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
def test_a_packed_table_is_read_and_counted_in_the_place_of_the_plain_one(tmp_path: Path, suffix: str):
    path = packed_table(tmp_path, suffix)
    assert read_table(path, "StudyID") == [{"StudyID": "1", "split": "test"}]
    assert read_text(path).startswith("StudyID,split")
    assert count_files(tmp_path, "master_table.csv") == 1


def test_the_plain_table_goes_before_the_packed_one(tmp_path: Path):
    path = packed_table(tmp_path, ".zip")
    write_table(path, [{"StudyID": "2", "split": "train"}])
    assert read_table(path)[0]["StudyID"] == "2"
    assert count_files(tmp_path, "master_table.csv") == 1


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
def test_a_damaged_packed_table_is_named(tmp_path: Path, suffix: str):
    path = packed_table(tmp_path, suffix)
    packed = path.with_name(path.name + suffix)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(VividMedError, match=rf"master_table\.csv\{suffix}: not a readable archive"):
        read_table(path)


def test_an_archive_of_another_table_is_not_a_substitute(tmp_path: Path):
    other = write_table(tmp_path / "other.csv", [{"a": 1}])
    zipped(tmp_path / "master_table.csv.zip", other, root=tmp_path)
    with pytest.raises(VividMedError, match=r"contains 0 files named master_table\.csv"):
        read_table(tmp_path / "master_table.csv")


@pytest.mark.parametrize("kind", ["series", "ct.nii.gz", "ct.nii", "ct.nrrd"])
def test_a_zipped_image_is_the_image(tmp_path: Path, kind: str):
    path = Phantom().write_image(tmp_path / "study" / kind)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    image = read_original(zipped(tmp_path / "case.zip", *files, root=tmp_path))
    plain = read_original(path)
    np.testing.assert_array_equal(image.array, plain.array)
    np.testing.assert_array_equal(image.affine, plain.affine)
    assert image.source == str(tmp_path / "case.zip")


def test_the_hint_names_archives_and_numbered_parts(tmp_path: Path):
    assert unpack_hint(tmp_path) == ""
    (tmp_path / "scan.nii.gz").touch()
    assert unpack_hint(tmp_path) == ""
    (tmp_path / "files").mkdir()
    for name in ("files/images.zip.001", "files/images.zip.002", "labels.tar.gz", "masks.zip"):
        (tmp_path / name).touch()
    assert unpack_hint(tmp_path) == (
        "unpack files/images.zip.001, files/images.zip.002, labels.tar.gz and 1 more in place, "
        "after joining the numbered parts with cat"
    )
