import csv
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from filelock import FileLock

from tests.fixtures.miniatures import picture, write_picture
from tests.fixtures.preparation import Toy, add_case
from vividmed.data.adapters.base import (
    Case,
    ImageFile,
    LabelMap,
    MaskFiles,
    QuestionAnswer,
    Skipped,
    numbered,
    presence_turn,
    report_turn,
)
from vividmed.data.batches.examples import read_images
from vividmed.data.image_grids import check_grids
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.integrity import verify_origin
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.errors import VividMedError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    for number in range(10):
        add_case(folder, f"p{number // 2}_{number}", seed=number)
    return folder


@pytest.fixture
def origin(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "origin"))


def _shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / "data").iterdir())}


def _failures(output: Path) -> list[list[str]]:
    with (output / "failures.csv").open(encoding="utf-8") as stream:
        return list(csv.reader(stream))[1:]


def test_a_second_run_with_unchanged_input_touches_nothing(origin: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert prepare_dataset(Toy(), origin, output).worked_on == 10
    before = {path: path.stat().st_mtime_ns for path in (output / "data").iterdir()}
    assert before
    # Copying gives the files other times; their content decides.
    copy = tmp_path / "moved"
    shutil.copytree(origin, copy)
    assert prepare_dataset(Toy(), copy, output).worked_on == 0
    assert {path: path.stat().st_mtime_ns for path in (output / "data").iterdir()} == before


def test_a_changed_file_is_done_again_and_its_neighbours_are_not(origin: Path, tmp_path: Path):
    output = tmp_path / "out"
    prepare_dataset(Toy(), origin, output)
    add_case(origin, "p1_3", seed=99)
    assert prepare_dataset(Toy(), origin, output).worked_on == 1
    prepare_dataset(Toy(), origin, tmp_path / "fresh")
    assert _shards(output) == _shards(tmp_path / "fresh")


def test_another_window_does_everything_again(origin: Path, tmp_path: Path):
    output = tmp_path / "out"
    prepare_dataset(Toy(), origin, output)
    result = prepare_dataset(Toy(), origin, output, processing=Processing(window="lung"))
    assert result.worked_on == 10


def test_a_lower_resolution_is_kept_in_rows_and_grids(origin: Path, tmp_path: Path):
    output = tmp_path / "out"
    prepare_dataset(Toy(), origin, output, processing=Processing(max_in_plane=8))
    for row in load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache")):
        (grid,) = row["grids"]
        assert min(grid["size"][1:]) == 8
        check_grids(row["grids"], read_images(row))
    with pytest.raises(VividMedError, match="--max-in-plane 0"):
        Processing(max_in_plane=0)


def test_small_shards_contain_the_same_rows_in_the_same_order(origin: Path, tmp_path: Path):
    prepare_dataset(Toy(), origin, tmp_path / "one")
    prepare_dataset(Toy(), origin, tmp_path / "many", shard_bytes=10_000)
    assert len(_shards(tmp_path / "many")) > len(_shards(tmp_path / "one"))
    tables = [
        pq.read_table(tmp_path / name / "data", columns=["id", "targets", "masks"])
        for name in ("one", "many")
    ]
    assert tables[0].equals(tables[1])


def test_worker_processes_give_the_same_bytes_as_one(origin: Path, tmp_path: Path):
    prepare_dataset(Toy(), origin, tmp_path / "one", shard_bytes=10_000)
    prepare_dataset(Toy(), origin, tmp_path / "two", shard_bytes=10_000, num_proc=2)
    assert _shards(tmp_path / "one") == _shards(tmp_path / "two")


def test_a_patient_lies_in_one_split_whatever_the_limit(origin: Path, tmp_path: Path):
    prepare_dataset(Toy(), origin, tmp_path / "all")
    prepare_dataset(Toy(), origin, tmp_path / "some", limit=5)
    splits = []
    for name in ("all", "some"):
        loaded = load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))
        found: dict[str, set[str]] = {}
        for split, rows in loaded.items():
            for patient in rows["patient"]:
                found.setdefault(patient, set()).add(split)
        assert all(len(each) == 1 for each in found.values())
        splits.append(found)
    assert splits[1].items() <= splits[0].items()


def test_failed_and_left_out_cases_are_listed_with_their_reasons(origin: Path, tmp_path: Path):
    (origin / "labels/p0_0.nii.gz").unlink()
    add_case(origin, "p9_skip")
    output = tmp_path / "out"
    result = prepare_dataset(Toy(), origin, output)
    assert sum(result.rows.values()) == 9
    (failed, left_out) = _failures(output)
    assert failed[:2] == ["p0_0", "failed"]
    assert "labels/p0_0.nii.gz" in failed[2]
    assert str(origin) not in failed[2]
    assert left_out == ["p9_skip", "left out", "the authors withdrew the scan"]


def test_a_repaired_case_is_added_without_doing_the_others_again(origin: Path, tmp_path: Path):
    label = origin / "labels/p0_0.nii.gz"
    label.rename(tmp_path / "kept.nii.gz")
    output = tmp_path / "out"
    assert list(prepare_dataset(Toy(), origin, output).failed) == ["p0_0"]
    assert prepare_dataset(Toy(), origin, output).worked_on == 0
    assert prepare_dataset(Toy(), origin, output, retry_failed=True).worked_on == 1
    (tmp_path / "kept.nii.gz").rename(label)
    repaired = prepare_dataset(Toy(), origin, output)
    assert (repaired.worked_on, repaired.failed) == (1, {})
    prepare_dataset(Toy(), origin, tmp_path / "fresh")
    assert _shards(output) == _shards(tmp_path / "fresh")


def test_two_cases_of_one_id_fail_and_the_rest_is_prepared(origin: Path, tmp_path: Path):
    class Twice(Toy):
        def cases(self, origin: Path) -> Iterator[Case | Skipped]:
            yield from super().cases(origin)
            yield next(iter(super().cases(origin)))  # type: ignore[misc]

    result = prepare_dataset(Twice(), origin, tmp_path / "out")
    assert sum(result.rows.values()) == 9
    assert list(result.failed) == ["p0_0"]


@pytest.mark.parametrize(
    "mentioned",
    [
        lambda name, path: {"annotations": (LabelMap(path, {"liver": 1, name: 2}),)},
        lambda name, _: {"annotations": (MaskFiles({name: ()}),)},
        lambda name, _: {"boxes": ((numbered(name, 2), (0, 1, 2, 1, 5, 6)),)},
        lambda name, _: {"absent": (name,)},
        lambda name, _: {"incomplete": (name,)},
        lambda name, _: {"phrases": (("liver",), (numbered(name, 1),))},
    ],
    ids=["label map", "mask files", "boxes", "absent", "incomplete", "phrases"],
)
def test_a_target_outside_the_taxonomy_is_one_error_before_any_work(mentioned, origin: Path, tmp_path: Path):
    class Unknown(Toy):
        def cases(self, origin: Path) -> Iterator[Case | Skipped]:
            yield from super().cases(origin)
            for number in range(3):
                image = ImageFile(path=origin / "images/p0_0.nii.gz", modality="CT")
                changes = mentioned("lung nodul", origin / "labels/p0_0.nii.gz")
                yield Case(id=f"u{number}", patient="u", images=(image,), **changes)

    with pytest.raises(
        VividMedError, match=r"toy: .*'lung nodul' \(3 cases; nearest: 'lung nodule'"
    ) as caught:
        prepare_dataset(Unknown(), origin, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.arrow"))
    report = verify_origin(Unknown(), origin)
    assert not report.complete
    assert "'lung nodul' (3 cases; nearest: 'lung nodule'" in report.table()


def test_partly_annotated_targets_without_voxels_are_not_absent(origin: Path, tmp_path: Path):
    class Partly(Toy):
        def cases(self, origin: Path) -> Iterator[Case]:
            image = origin / "images/p0_0.nii.gz"
            label = LabelMap(
                origin / "labels/p0_0.nii.gz",
                {"liver": 1, "lung nodule": 7, "spleen": 8},
                ignored=2,
                partial=frozenset({"lung nodule"}),
            )
            none = MaskFiles({"stomach": (), "colon": ()}, partial=frozenset({"colon"}))
            yield Case(
                id="a", patient="a", images=(ImageFile(path=image, modality="CT"),), annotations=(label, none)
            )

    result = prepare_dataset(Partly(), origin, tmp_path / "out")
    (facts,) = [row for rows in result.facts.values() for row in rows]
    assert (facts["present"], facts["absent"]) == (["liver"], ["spleen", "stomach"])


def test_a_full_disk_ends_the_run_with_one_line(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(VividMedError, match="GB are free") as caught:
        prepare_dataset(Toy(), origin, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["output", "lock", "shard", "case"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG])
def test_an_output_that_cannot_be_written_ends_the_run_with_one_line_and_is_resumed(
    where: str, code: int, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    failing = {
        "output": (Path, "mkdir"),
        "lock": (FileLock, "acquire"),
        "shard": (pq.ParquetWriter, "write_table"),
        "case": (os, "fsync"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*failing[where], fail)
        with pytest.raises(VividMedError, match=f"cannot be written .{os.strerror(code)}") as caught:
            prepare_dataset(Toy(), origin, tmp_path / "out", limit=2)
    assert "\n" not in str(caught.value)
    assert sum(prepare_dataset(Toy(), origin, tmp_path / "out", limit=2).rows.values()) == 2


def test_names_that_are_too_long_are_one_line(origin: Path, tmp_path: Path):
    with pytest.raises(VividMedError, match=r"cannot be written .File name too long"):
        prepare_dataset(Toy(), origin, tmp_path / ("o" * 300))
    with pytest.raises(VividMedError, match=r"cannot be read .File name too long"):
        prepare_dataset(Toy(), tmp_path / ("o" * 300), tmp_path / "out")

    class Long(Toy):
        def cases(self, origin: Path) -> Iterator[Case | Skipped]:
            yield from super().cases(origin)
            image = ImageFile(path=origin / f"{'i' * 300}.nii.gz", modality="CT")
            yield Case(id="c" * 300, patient="long", images=(image,), absent=("liver",))

    result = prepare_dataset(Long(), origin, tmp_path / "out")
    assert list(result.failed) == ["c" * 300]
    assert sum(result.rows.values()) == 10


@pytest.mark.parametrize("content", ["{", "[1]", '[{"split": "train"}]', '{"cases": [{"x": 1}], "size": 1}'])
def test_a_damaged_note_names_the_file_to_delete(content: str, origin: Path, tmp_path: Path):
    prepare_dataset(Toy(), origin, tmp_path / "out", limit=2)
    for path in (tmp_path / "out/.preparation").glob("*.json"):
        kept = path.read_text()
        path.write_text(content)
        with pytest.raises(VividMedError, match=rf"{path.name}: is damaged .*delete it and run again"):
            prepare_dataset(Toy(), origin, tmp_path / "out", limit=2)
        path.write_text(kept)


def test_windows_are_refused_where_there_is_no_ct(origin: Path, tmp_path: Path):
    class Mri(Toy):
        modalities = ("T1 MRI",)

    with pytest.raises(VividMedError, match="--window is for CT"):
        prepare_dataset(Mri(), origin, tmp_path / "out", processing=Processing(window="lung"))


def test_conversations_keep_their_turns_and_the_kind_of_each(tmp_path: Path):
    class Reports(Toy):
        row_kind = "vision_language"

        def cases(self, origin: Path) -> Iterator[Case]:
            frontal, lateral = (write_picture(origin / f"{name}.png", picture()) for name in ("a", "b"))
            images = (
                ImageFile(path=frontal, modality="X-ray", plane="PA"),
                ImageFile(path=lateral, modality="X-ray", plane="lateral"),
            )
            turns = (
                report_turn("The heart is large.", "Cardiomegaly."),
                presence_turn(present=["cardiomegaly"], absent=["pneumothorax"], uncertain=["atelectasis"]),
                QuestionAnswer("vqa", "Is the heart large?", "Yes"),
            )
            yield Case(id="s1", patient="p1", images=images, split="test", turns=turns)
            yield Case(id="s2", patient="p2", images=images[:1], split="test", turns=turns[:1])

    (tmp_path / "origin").mkdir()
    prepare_dataset(Reports(), tmp_path / "origin", tmp_path / "out")
    both, one = load_dataset(str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "cache"))
    assert (both["kind"], one["kind"]) == ("report+presence+vqa", "report")
    assert (both["plane"], one["plane"]) == (None, "PA")
    assert len(both["images"]) == 2
    assert both["messages"][1]["content"] == "Findings: The heart is large.\nImpression: Cardiomegaly."
    expected = "Results: atelectasis: uncertain, cardiomegaly: yes, pneumothorax: no."
    assert both["messages"][3]["content"] == expected
    np.testing.assert_array_equal(np.asarray(one["images"][0]), picture())


def test_phrases_of_a_grounded_report_keep_their_own_boxes(tmp_path: Path):
    first, second = numbered("lung nodule", 1), numbered("lung nodule", 2)

    class Grounded(Toy):
        row_kind = "grounded_report"

        def cases(self, origin: Path) -> Iterator[Case]:
            file = ImageFile(path=write_picture(origin / "a.png", picture()), modality="X-ray")
            yield Case(
                id="a",
                patient="a",
                images=(file,),
                split="train",
                report="<p>Two nodules</p> on the left, <p>one nodule</p> on the right.",
                phrases=((first,), (second,)),
                boxes=(
                    (first, (0, 1, 2, 1, 5, 6)),
                    (first, (0, 8, 2, 1, 12, 6)),
                    (second, (0, 1, 20, 1, 5, 26)),
                ),
            )

    (tmp_path / "origin").mkdir()
    prepare_dataset(Grounded(), tmp_path / "origin", tmp_path / "out")
    (row,) = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    plain = row["report"].replace("<p>", "").replace("</p>", "")
    assert [plain[p["start"] : p["end"]] for p in row["phrases"]] == ["Two nodules", "one nodule"]
    assert [sum(b["target"] in p["targets"] for b in row["boxes"]) for p in row["phrases"]] == [2, 1]
