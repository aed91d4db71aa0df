"""What may leave a folder: plain files of the list, and their content at the time of the scan."""

import os

import pytest

from vividmed.errors import VividMedError
from vividmed.hub import staging
from vividmed.hub.staging import list_files, stage_files


def allowed(name):
    return name in ("README.md", "LICENSE") or name.endswith(".parquet")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (folder / "data/train.parquet").write_bytes(b"rows")
    (folder / "notes.csv").write_text("stays")
    (folder / ".work").mkdir()
    (folder / ".work/part.parquet").write_bytes(b"stays")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret.parquet").write_bytes(b"secret")
    (tmp_path / "elsewhere/key").write_text("secret")
    return folder


def test_files_of_the_list_are_found_and_others_stay(folder):
    assert list_files(folder, allowed, recursive=True) == ["README.md", "data/train.parquet"]
    assert list_files(folder, allowed, recursive=False) == ["README.md"]


UNFIT = {
    "link to a file": lambda folder: (folder / "LICENSE").symlink_to("../elsewhere/key"),
    "link to a file inside": lambda folder: (folder / "LICENSE").symlink_to("README.md"),
    "broken link": lambda folder: (folder / "LICENSE").symlink_to("nowhere"),
    "link deeper down": lambda folder: (folder / "data/x.parquet").symlink_to(
        "../../elsewhere/secret.parquet"
    ),
    "link to a folder": lambda folder: (folder / "more").symlink_to("../elsewhere"),
    "pipe": lambda folder: os.mkfifo(folder / "LICENSE"),
    "device": lambda folder: os.mknod(folder / "LICENSE", 0o20600, os.makedev(1, 3)),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_what_is_not_a_plain_file_is_refused(folder, make):
    try:
        make(folder)
    except PermissionError:
        pytest.skip("this user may not make devices")
    with pytest.raises(VividMedError, match=r"is a link to|is not a plain file") as caught:
        list_files(folder, allowed, recursive=True)
    assert "\n" not in str(caught.value)


def test_folder_with_the_name_of_a_file_is_not_looked_into(folder):
    (folder / "LICENSE").mkdir()
    (folder / "LICENSE/id_rsa").write_text("secret")
    assert "LICENSE/id_rsa" not in list_files(folder, allowed, recursive=True)


@pytest.mark.parametrize("copied_bytes", [0, 1_000_000], ids=["second names", "copies"])
def test_what_takes_the_place_of_a_file_later_is_not_sent(folder, monkeypatch, copied_bytes):
    monkeypatch.setattr(staging, "_COPIED_BYTES", copied_bytes)
    names = list_files(folder, allowed, recursive=True)
    with stage_files(folder, names) as staged:
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to("../elsewhere/key")
        assert (staged.folder / "README.md").read_text() == "card"
        staged.check_unchanged()
        assert sorted(p.name for p in staged.folder.rglob("*") if p.is_file()) == [
            "README.md",
            "train.parquet",
        ]
        inside = staged.folder
    assert not inside.exists()


def test_file_that_is_written_to_meanwhile_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(staging, "_COPIED_BYTES", 0)
    with stage_files(folder, ["README.md"]) as staged:
        (folder / "README.md").write_text("something else")
        with pytest.raises(VividMedError, match=r"README\.md: was changed"):
            staged.check_unchanged()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("README.md"), os.mkfifo], ids=["link", "pipe"])
def test_what_becomes_a_link_or_a_pipe_after_the_listing_is_refused(folder, make):
    (folder / "data/train.parquet").unlink()
    make(folder / "data/train.parquet")
    with (
        pytest.raises(VividMedError, match=r"train\.parquet: "),
        stage_files(folder, ["README.md", "data/train.parquet"]),
    ):
        pass


def test_folder_that_cannot_be_written_is_copied_elsewhere(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(staging, "FileLock", refuse)
    with stage_files(folder, ["README.md"]) as staged:
        assert folder not in staged.folder.parents
        assert (staged.folder / "README.md").read_text() == "card"
