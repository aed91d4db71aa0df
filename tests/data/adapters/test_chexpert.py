from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    image_of,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

COLUMNS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
PIXELS = picture((60, 50))


def _row(path: str, view: str = "", **labels: float) -> dict[str, Any]:
    values = {column: labels.get(column.replace(" ", "_"), "") for column in COLUMNS}
    return {"Path": path, "Sex": "Female", "Age": 68, "AP/PA": view} | values


def _write(origin: Path, row: dict[str, Any]) -> Path:
    relative = row["Path"].removeprefix("CheXpert-v1.0/")
    return write_picture(origin / "CheXpert-v1.0" / relative, PIXELS)


@miniature(
    "chexpert",
    truncated={
        "CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg": "patient00003-study1-view1_frontal"
    },
)
def prepared(origin: Path) -> None:
    train = [
        _row(
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
            "AP",
            Cardiomegaly=1.0,
            Edema=-1.0,
            Pneumothorax=0.0,
            Lung_Lesion=1.0,
        ),
        _row("CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg", No_Finding=1.0),
        _row("CheXpert-v1.0/train/patient00002/study2/view1_frontal.jpg", "PA", Pleural_Other=1.0),
        _row("CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg", "PA", Fracture=1.0),
    ]
    valid = [_row("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "AP", **_all(0.0))]
    test = [_row("test/patient64741/study1/view1_frontal.jpg", **(_all(0.0) | {"Support_Devices": 1.0}))]
    del test[0]["AP/PA"]
    for row in (*train, *valid, *test):
        _write(origin, row)
    write_table(origin / "train_visualCheXbert.csv", train)
    write_table(origin / "CheXpert-v1.0/valid.csv", valid)
    write_table(origin / "CheXpert-v1.0/test.csv", test)


def _all(value: float) -> dict[str, float]:
    return {column.replace(" ", "_"): value for column in COLUMNS}


def _answer(row: dict[str, Any]) -> dict[str, str]:
    question, answer = row["messages"]
    assert [question["role"], answer["role"]] == ["user", "assistant"]
    entries = answer["content"].removeprefix("Results: ").removesuffix(".").split(", ")
    answers = dict(entry.split(": ") for entry in entries)
    assert all(name in question["content"] for name in answers)
    return answers


def test_uncertain_and_unmentioned_findings_are_kept_apart(prepared: Prepared):
    row = prepared.rows["patient00001-study1-view1_frontal"]
    assert row["kind"] == "presence"
    assert _answer(row) == {
        "cardiomegaly": "yes",
        "lung lesion": "yes",
        "pulmonary edema": "uncertain",
        "pneumothorax": "no",
    }


def test_no_finding_denies_every_finding_but_no_device(prepared: Prepared):
    answers = _answer(prepared.rows["patient00001-study1-view2_lateral"])
    assert set(answers.values()) == {"no"}
    assert len(answers) == 11
    assert "support device" not in answers


def test_a_device_of_the_test_images_is_present_and_all_else_absent(prepared: Prepared):
    answers = _answer(prepared.rows["patient64741-study1-view1_frontal"])
    assert {name for name, answer in answers.items() if answer == "yes"} == {"support device"}
    assert len(answers) == 12


def test_views_come_from_the_table_or_the_name_of_the_file(prepared: Prepared):
    planes = {key: row["plane"] for key, row in prepared.rows.items()}
    assert planes == {
        "patient00001-study1-view1_frontal": "AP",
        "patient00001-study1-view2_lateral": "lateral",
        "patient64541-study1-view1_frontal": "AP",
        "patient64741-study1-view1_frontal": "frontal",
    }


def test_official_splits_are_kept(prepared: Prepared):
    splits = {row["patient"]: prepared.split_of[key] for key, row in prepared.rows.items()}
    assert splits == {
        "chexpert:patient00001": "train",
        "chexpert:patient64541": "validation",
        "chexpert:patient64741": "test",
    }


def test_the_picture_is_neither_cropped_nor_transposed(prepared: Prepared):
    pixels = image_of(prepared.rows["patient64541-study1-view1_frontal"])[0][0].astype(float)
    assert pixels.shape == (60, 50)
    assert np.corrcoef(pixels.ravel(), PIXELS.ravel())[0, 1] > 0.9


def test_images_without_any_label_are_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["patient00002-study2-view1_frontal"]
