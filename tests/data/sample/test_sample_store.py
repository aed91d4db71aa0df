import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from vividmed.data.sample.store import MANIFEST, build_once, is_complete
from vividmed.errors import VividMedError


def build(folder):
    (folder / "kind").mkdir()
    (folder / "kind" / "train.parquet").write_bytes(b"rows")
    (folder / "other.bin").write_bytes(b"more")


def counting(times):
    def counted(folder):
        times.append(1)
        build(folder)

    return counted


def test_a_complete_folder_is_built_once(tmp_path):
    times = []
    folder = build_once(tmp_path / "cache" / "sample", counting(times))
    assert is_complete(folder)
    assert build_once(folder, counting(times)) == folder
    assert len(times) == 1
    assert (folder / "kind" / "train.parquet").read_bytes() == b"rows"


def damage_file(folder):
    (folder / "kind" / "train.parquet").write_bytes(b"rowz")


def remove_file(folder):
    (folder / "other.bin").unlink()


def remove_manifest(folder):
    (folder / MANIFEST).unlink()


def empty_manifest(folder):
    (folder / MANIFEST).write_text(json.dumps({}))


def truncate_manifest(folder):
    (folder / MANIFEST).write_text('{"kind/tra')


@pytest.mark.parametrize(
    "damage", [damage_file, remove_file, remove_manifest, empty_manifest, truncate_manifest]
)
def test_a_damaged_folder_is_built_again(tmp_path, damage):
    times = []
    folder = build_once(tmp_path / "sample", counting(times))
    damage(folder)
    assert not is_complete(folder)
    build_once(folder, counting(times))
    assert len(times) == 2
    assert is_complete(folder)


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
    def fail(folder):
        build(folder)
        raise OSError("disk full")

    with pytest.raises(VividMedError, match=r"cannot be written .disk full"):
        build_once(tmp_path / "sample", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert is_complete(build_once(tmp_path / "sample", build))


def test_the_remains_of_a_killed_build_are_cleared(tmp_path):
    remains = tmp_path / "sample.incomplete"
    remains.mkdir()
    (remains / "stale").write_bytes(b"x")
    folder = build_once(tmp_path / "sample", build)
    assert not remains.exists()
    assert not (folder / "stale").exists()


def test_concurrent_builders_build_once(tmp_path):
    times, together = [], Barrier(4)

    def one(_):
        together.wait()
        return build_once(tmp_path / "sample", counting(times))

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(one, range(4)))
    assert folders == {tmp_path / "sample"}
    assert len(times) == 1
