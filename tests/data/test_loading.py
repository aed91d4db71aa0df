"""Data sets are loaded with one-line errors, and their rows name no files outside their folder."""

from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, List, Value, config
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image

from vividmed.data.loading import check_image_paths, load_prepared
from vividmed.data.sampling.mixture import load_mixture
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import VISION_LANGUAGE
from vividmed.errors import VividMedError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # A stream rests for seconds after each pass, which here is a few rows.
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def write_set(folder: Path, *files: dict, column: str = "images") -> Path:
    """A data set of one row per file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"row-{number}",
            "patient": "p",
            "images": [],
            "volumes": [],
            "modality": "CT",
            "plane": None,
            "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}],
            "kind": "vqa",
            "source": "s",
            "licence": "CC0",
            column: [file],
        }
        for number, file in enumerate(files)
    ]
    # Written as it would be stored; the library drops the content of images whose path exists.
    table = pa.Table.from_pylist(rows, schema=VISION_LANGUAGE.arrow_schema)
    pq.write_table(table, folder / "train.parquet")
    return folder


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("column", ["images", "volumes"])
@pytest.mark.parametrize("form", ["absolute", "parent", "link", "home"])
def test_rows_may_not_name_files_outside_the_folder_of_their_data_set(tmp_path: Path, column: str, form: str):
    private = picture(tmp_path / "private/secret.png")
    folder = tmp_path / "set"
    inside = picture(folder / "pictures/a.png")
    named = {
        "absolute": str(private),
        "parent": f"{folder}/../private/secret.png",
        "link": str(folder / "link.png"),
        "home": "/etc/passwd",
    }
    (folder / "link.png").symlink_to(private)
    files = [{"bytes": inside.read_bytes(), "path": str(private)}, {"bytes": None, "path": str(inside)}]
    write_set(folder, *files, {"bytes": None, "path": named[form]}, column=column)
    with pytest.raises(VividMedError, match=rf"row row-2: {column}\[0\] names the file .* outside") as caught:
        load_prepared(str(folder), what="it", split="train")
    assert "\n" not in str(caught.value)
    assert load_prepared(str(folder), what="it", split="train", allow_outside_images=True).num_rows == 3
    entry = MixtureEntry(name="set", row_kind="vision_language", path=str(folder))
    mixture = MixtureConfig(entries=(entry,))
    with pytest.raises(VividMedError, match=r"set: .*row row-2"):
        load_mixture(mixture)
    assert len(load_mixture(mixture, allow_outside_images=True)) == 3
    with pytest.raises(VividMedError, match="row row-2"):
        list(islice(MixtureStream(mixture, batch_size=1), 3))
    stream = MixtureStream(mixture, batch_size=1, allow_outside_images=True)
    assert len(list(islice(stream, 3))) == 3


def test_files_inside_the_folder_and_embedded_images_are_accepted(tmp_path: Path):
    inside = picture(tmp_path / "set/pictures/a.png")
    embedded = {"bytes": inside.read_bytes(), "path": "/elsewhere/a.png"}
    folder = write_set(tmp_path / "set", embedded, {"bytes": None, "path": str(inside)})
    (rows,) = load_prepared(str(folder), what="it").values()
    assert [row["images"][0].size for row in rows] == [(4, 4)] * 2


def test_data_sets_of_other_columns_are_loaded(tmp_path: Path):
    Dataset.from_dict(
        {"images": [["a"], []]}, features=Features({"images": List(Value("string"))})
    ).to_parquet(tmp_path / "set/train.parquet")
    assert load_prepared(str(tmp_path / "set"), what="it", split="train").num_rows == 2


@pytest.mark.parametrize("content", [b"", b"PAR1 damaged", b"PAR1" + bytes(200) + b"PAR1"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(VividMedError, match="cannot be loaded") as caught:
        load_prepared(str(tmp_path), what="it", split="train")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_set(tmp_path / "set", {"bytes": picture(tmp_path / "a.png").read_bytes(), "path": "a.png"})
    (tmp_path / "file").touch()
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "file/cache")
    with pytest.raises(VividMedError, match=r"cannot be loaded .*Not a directory"):
        load_prepared(str(folder), what="it", split="train")


@pytest.mark.parametrize("path", ["/etc/hostname.png", "../../private.png", "scan.png", "~/x.png"])
def test_rows_of_a_repository_may_name_files_of_the_caches_only(path: str, tmp_path: Path):
    write_set(tmp_path / "set", {"bytes": None, "path": path})
    rows = load_prepared(str(tmp_path / "set"), split="train", what="it", allow_outside_images=True)
    with pytest.raises(VividMedError, match=r"org/set: row row-0: images\[0\] names the file"):
        check_image_paths(rows, "org/set")
    write_set(
        tmp_path / "fetched",
        {"bytes": None, "path": f"{HF_HUB_CACHE}/datasets--org--set/a.png"},
        {"bytes": None, "path": "hf://datasets/org/set/b.png"},
    )
    rows = load_prepared(str(tmp_path / "fetched"), split="train", what="it", allow_outside_images=True)
    check_image_paths(rows, "org/set")


def write_carded(folder: Path, value: str) -> Path:
    """A folder as a preparation leaves it: a card that names the files, and shards."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": [value]}), folder / "data/train-00000-of-00001.parquet")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet\n---\n"
    (folder / "README.md").write_text(card)
    return folder


def test_folders_of_one_name_are_not_taken_for_each_other(tmp_path):
    folders = {value: write_carded(tmp_path / value / "rows", value) for value in ("one", "other")}
    loaded = {
        value: load_prepared(str(folder), what="it", split="train")["id"] for value, folder in folders.items()
    }
    assert loaded == {"one": ["one"], "other": ["other"]}


def test_a_folder_that_was_written_again_is_read_again(tmp_path):
    for value in ("before", "after"):
        folder = write_carded(tmp_path / "rows", value)
        assert load_prepared(str(folder), what="it", split="train")["id"] == [value]
