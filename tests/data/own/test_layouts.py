"""Layouts of folders and files: nnU-Net, COCO, BIDS and image folders, from original files to rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from tests.fixtures.miniatures import Phantom, assert_row_shows, masks_of, picture, write_picture, write_table
from vividmed.cli.main import main
from vividmed.data.own.coco import decode_segmentation, read_coco_listing
from vividmed.data.own.target_names import TargetNames
from vividmed.data.raw.case import Case
from vividmed.data.terms import read_terms

PHANTOM = Phantom(values=(1, 2, 3), size=(24, 20, 12), axcodes="LPS")
VERSION_1 = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "Liver", "2": "liver tumour", "3": "spleen"},
}
VERSION_2 = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "whole liver": [1, 2], "liver_tumour": 2, "spleen": 3},
    "regions_class_order": [1, 2, 3],
    "numTraining": 4,
    "file_ending": ".nii.gz",
}


def prepare(layout: str, *arguments: object, output: Path, status: int = 0) -> dict[str, Dataset]:
    assert main(["prepare", layout, *map(str, arguments), "--output", str(output)]) == status
    return load_dataset(str(output), cache_dir=str(output.parent / "cache"))


def rows_of(splits: dict[str, Dataset]) -> dict[str, dict[str, Any]]:
    return {row["id"].partition(":")[2]: row for rows in splits.values() for row in rows}


def write_nnunet(
    folder: Path, dataset: dict[str, Any], cases: Sequence[str] = ("c1", "c2", "c3", "c4")
) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for case in cases:
        PHANTOM.write_image(folder / f"imagesTr/{case}_0000.nii.gz")
        PHANTOM.write_labels(
            folder / f"labelsTr/{case}.nii.gz", {1: 1, 2: 2, 3: 3} if case != "c2" else {1: 1}
        )
    return folder


@pytest.mark.parametrize("version", [1, 2])
def test_nnunet_labels_lie_at_their_places(version: int, tmp_path: Path):
    folder = write_nnunet(tmp_path / "Dataset001_Liver", VERSION_1 if version == 1 else VERSION_2)
    PHANTOM.write_image(folder / "imagesTs/t1_0000.nii.gz")
    renames = ["--map", "liver_tumour=liver tumor"]
    if version == 2:
        PHANTOM.write_labels(folder / "labelsTs/t1.nii.gz")
        renames += ["--map", "whole liver=liver"]
    splits = prepare("nnunet", folder, *renames, output=tmp_path / "out")
    rows = rows_of(splits)
    liver: int | tuple[int, ...] = (1, 2) if version == 2 else 1
    assert_row_shows(rows["c1"], PHANTOM, {"liver": liver, "liver tumor": 2, "spleen": 3})
    assert_row_shows(rows["c2"], PHANTOM, {"liver": 1}, absent=["liver tumor", "spleen"])
    assert rows["c1"]["modality"] == "CT"
    assert ("t1" in {row["id"].partition(":")[2] for row in splits["test"]}) == (version == 2)
    terms = read_terms(tmp_path / "out")
    assert (terms.access, terms.data_visibility, terms.model_visibility) == ("internal", "private", "private")


def test_nnunet_with_reports_has_localization_and_grounded_report_rows_of_the_same_splits(
    tmp_path: Path, capsys
):
    folder = write_nnunet(tmp_path / "set", VERSION_1)
    reports = [
        {"case": "c1", "report": "The liver has a hypodense liver tumor. The spleen is normal."},
        {"case": "c2_0000.nii.gz", "report": "Findings: normal liver, no liver tumor."},
        {"case": "c3", "report": "The liver is normal."},
        {"case": "c9", "report": "Nothing."},
    ]
    write_table(folder / "reports.csv", reports)
    splits = prepare("nnunet", folder, "--map", "liver tumour=liver tumor", output=tmp_path / "out", status=1)
    assert "row 5, column 'case': 'c9' is not a case" in capsys.readouterr().out
    assert set(rows_of(splits)) == {"c1", "c2", "c3", "c4"}
    grounded = load_dataset(str(tmp_path / "out"), "grounded_report", cache_dir=str(tmp_path / "cache"))
    assert set(rows_of(grounded)) == {"c1", "c2", "c3"}
    split_of = {row["id"]: split for split, rows in splits.items() for row in rows}
    assert all(split_of[row["id"]] == split for split, rows in grounded.items() for row in rows)
    row = rows_of(grounded)["c1"]
    shown = {phrase["text"]: phrase["targets"] for phrase in row["phrases"]}
    assert shown["liver"] == ["liver"]
    assert ["liver tumor"] in shown.values()
    assert "tumor" not in " ".join(phrase["text"] for phrase in rows_of(grounded)["c2"]["phrases"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "livr": 1}}, "'livr' (4 cases; nearest: 'liver')"),
        ({"labels": {"background": 0, "flipper": 1}}, "by a file (--taxonomy)"),
        ({"labels": {}}, "field 'labels' is missing or empty"),
        ({"labels": {"background": 0}}, "names no label besides the background"),
        ({"modality": {"0": "CT", "1": "CT"}}, "need different names"),
        ({"modality": {}}, "field 'channel_names' (or 'modality') is missing or empty"),
        ({"file_ending": ".mha"}, "contains no file that ends in .mha"),
    ],
)
def test_what_is_wrong_with_an_nnunet_folder_is_said_before_any_work(change, message, tmp_path: Path, capsys):
    folder = write_nnunet(tmp_path / "set", VERSION_1 | change)
    assert main(["prepare", "nnunet", str(folder), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_targets_of_ones_own_are_used_and_kept_with_the_data_set(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("VIVIDMED_TAXONOMY", "")
    folder = write_nnunet(
        tmp_path / "set",
        VERSION_1 | {"labels": {"0": "background", "1": "Flipper R", "2": "fin", "3": "milt"}},
    )
    own = tmp_path / "own.yaml"
    own.write_text(
        "targets:\n  flipper: {category: anatomy, sides: true}\n"
        "  tail fin: {category: anatomy, synonyms: [fin], parents: [bone]}\n  spleen: {synonyms: [milt]}\n"
    )
    rows = rows_of(prepare("nnunet", folder, "--taxonomy", own, output=tmp_path / "out"))
    assert set(rows["c1"]["targets"]) == {"right flipper", "tail fin", "spleen"}
    monkeypatch.setenv("VIVIDMED_TAXONOMY", "")
    from vividmed.data.loading import load_prepared
    from vividmed.data.taxonomy import Taxonomy

    assert "tail fin" not in Taxonomy.load()
    load_prepared(str(tmp_path / "out"), what="data")
    assert Taxonomy.load().mirror("right flipper") == "left flipper"


def coco(annotations: list[dict[str, Any]], **image: Any) -> dict[str, Any]:
    images = [
        {"id": n, "file_name": f"{n}.png", "height": 48, "width": 40, "patient_id": f"p{n % 4}", **image}
        for n in range(8)
    ]
    categories = [
        {"id": 1, "name": "Lung_Nodule"},
        {"id": 2, "name": "Pleural effusion"},
        {"id": 3, "name": "marker"},
    ]
    numbered = [{"id": n, "iscrowd": 0, **annotation} for n, annotation in enumerate(annotations)]
    return {"images": images, "annotations": numbered, "categories": categories}


SQUARE = [10, 5, 20, 5, 20, 15, 10, 15]
ANNOTATIONS: list[dict[str, Any]] = [
    {"image_id": "0", "category_id": "1", "bbox": [10, 5, 10, 10], "iscrowd": "0"},
    {"image_id": 1, "category_id": 1, "bbox": [10, 5, 10, 10], "segmentation": [SQUARE]},
    {"image_id": 2, "category_id": 1, "bbox": [10, 5, 10, 10], "segmentation": [[10, 5, 20, 5, 15, 15]]},
    {
        "image_id": 3,
        "category_id": 2,
        "segmentation": {"size": [48, 40], "counts": [48 * 5 + 3, 10, 48 * 35 - 13]},
    },
    {"image_id": 4, "category_id": 3, "bbox": [1, 1, 2, 2]},
    {"image_id": 5, "category_id": 1, "bbox": [10, 5, 0, 10]},
    {"image_id": 6, "category_id": 1, "bbox": [10, 5, 10, 10], "iscrowd": 1},
]


def test_coco_boxes_polygons_and_masks_become_rows(tmp_path: Path):
    for number in range(7):
        write_picture(tmp_path / f"images/{number}.png", picture(seed=number))
    (tmp_path / "boxes.json").write_text(json.dumps(coco(ANNOTATIONS)))
    out = tmp_path / "out"
    splits = prepare(
        "coco",
        tmp_path / "boxes.json",
        "--images",
        tmp_path / "images",
        "--modality",
        "CXR",
        "--map",
        "marker=",
        output=out,
        status=1,
    )
    rows = rows_of(splits)
    assert {row["modality"] for row in rows.values()} == {"X-ray"}
    assert [rows[n]["boxes"] for n in "01"] == [[{"target": "lung nodule", "box": [0, 5, 10, 1, 15, 20]}]] * 2
    assert rows["0"]["absent"] == ["pleural effusion"]
    assert not rows["2"]["boxes"]
    (triangle,) = masks_of(rows["2"], "lung nodule")
    assert 40 <= triangle.sum() <= 60
    (line,) = masks_of(rows["3"], "pleural effusion")
    assert np.argwhere(line[0]).tolist() == [[y, 5] for y in range(3, 13)]
    assert rows["4"]["targets"] == []
    assert rows["4"]["absent"] == ["lung nodule", "pleural effusion"]
    assert rows["6"]["targets"] == []
    assert rows["6"]["absent"] == ["pleural effusion"]
    assert set(rows) == set("012346")
    failures = (out / "failures.csv").read_text()
    assert "x0 = 10 of a box is not below x1 = 10" in failures
    assert "'7.png' is not in" in failures


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "field 'annotations' is missing"),
        (coco([{"category_id": 1}]), "annotation 1 names no image"),
        (
            coco([{"image_id": 99, "category_id": 1}]),
            "1 image_id of annotations, such as 99, belong to no image",
        ),
        (
            coco([], file_name="nope.png"),
            "no image can be used; the first one: boxes.json: image 1: 'nope.png' is not in",
        ),
        (coco([]) | {"categories": [{"id": 1}]}, "category 1 needs an 'id' and a 'name'"),
        (
            coco([]) | {"categories": [{"id": 1, "name": "lung nodule"}, {"id": "1", "name": "pneumonia"}]},
            "category id 1 occurs with different names",
        ),
        (coco([], id=3), "1 ids of images, such as 3, occur more than once"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_one_line(content, message, tmp_path: Path, capsys):
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    assert main(["prepare", "coco", str(tmp_path / "boxes.json"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_annotations_of_images_that_a_coco_file_does_not_list_are_noted(tmp_path: Path):
    write_picture(tmp_path / "1.png", picture())
    content = coco([{"image_id": key, "category_id": 1, "bbox": [2, 2, 9, 9]} for key in (1, 99)])
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    listing = read_coco_listing(tmp_path / "boxes.json")
    assert [case.boxes[0][0] for case in listing.cases if isinstance(case, Case)] == ["lung nodule"]
    assert listing.notes == (
        "1 annotation is about images that the file does not list, such as the image_id 99, and not used",
    )


def test_run_lengths_written_as_text_are_decoded():
    coco_mask = pytest.importorskip("faster_coco_eval.core.mask")
    mask = np.zeros((9, 7), np.uint8)
    mask[2:5, 1:4] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    text = counts.decode() if isinstance(counts, bytes) else counts
    assert np.array_equal(decode_segmentation(("rle", 9, 7, text), 9, 7), mask)


def test_bids_masks_belong_to_the_images_of_their_grid(tmp_path: Path):
    folder, other = tmp_path / "bids", Phantom(size=(20, 20, 10), spacing=(1.0, 1.0, 1.0))
    rows = [
        {"participant_id": f"sub-{n}", "split": split} for n, split in enumerate(("train", "val", "test"))
    ]
    write_table(folder / "participants.tsv", rows, "\t")
    for subject in range(3):
        PHANTOM.write_image(folder / f"sub-{subject}/ses-1/anat/sub-{subject}_ses-1_T1w.nii.gz")
        other.write_image(folder / f"sub-{subject}/ses-1/anat/sub-{subject}_ses-1_FLAIR.nii.gz")
        derived = folder / f"derivatives/manual/sub-{subject}/ses-1/anat/sub-{subject}_ses-1"
        PHANTOM.write_mask(derived.with_name(f"{derived.name}_space-T1w_label-spleen_mask.nii.gz"), 1)
        PHANTOM.write_labels(derived.with_name(f"{derived.name}_space-T1w_dseg.nii.gz"), {2: 2, 3: 3})
    table = [{"index": 2, "name": "Liver"}, {"index": 3, "name": "other"}]
    write_table(folder / "derivatives/manual/dseg.tsv", table, "\t")
    splits = prepare("bids", folder, "--map", "other=", output=tmp_path / "out")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1, "validation": 1, "test": 1}
    row = splits["train"][0]
    assert_row_shows(row, PHANTOM, {"spleen": 1, "liver": 2})
    assert (row["modality"], row["patient"]) == ("T1 MRI", "bids:0")


def test_image_folders_named_after_splits_are_splits(tmp_path: Path):
    for split in ("train", "test"):
        for number in range(2):
            write_picture(tmp_path / f"set/{split}/{number}.png", picture(seed=number))
        rows = [
            {"file_name": f"{number}.png", "text": f"Picture {number} of {split}."} for number in range(2)
        ]
        if split == "train":
            write_table(tmp_path / "set/train/metadata.csv", rows)
        else:
            (tmp_path / "set/test/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = prepare("imagefolder", tmp_path / "set", output=tmp_path / "out")
    assert {
        split: sorted(row["messages"][1]["content"] for row in rows) for split, rows in splits.items()
    } == {split: [f"Picture {number} of {split}." for number in range(2)] for split in ("train", "test")}


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("kidney_left", "left kidney"),
        ("Kidney_L", "left kidney"),
        ("L kidney", "left kidney"),
        ("LeftKidney", "left kidney"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("Livers", "liver"),
        ("background", None),
        ("something else", "something else"),
    ],
)
def test_labels_find_their_target(label: str, target: str | None):
    found = TargetNames().find(label)
    assert found == target or label.startswith("lung")
