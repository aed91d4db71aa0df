from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    image_of,
    picture,
    write_radiograph,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters.vindr_cxr import _FINDINGS as FINDINGS

PIXELS = picture((60, 50)).astype(np.uint16) * 16


def _labels(image: str, reader: str | None, *findings: str) -> dict[str, object]:
    ticks = {name: int(name in findings) for name in (*FINDINGS, "Other lesion", "No finding")}
    return {"image_id": image} | ({"rad_id": reader} if reader else {}) | ticks


def _box(image: str, reader: str | None, finding: str, *corners: float) -> dict[str, object]:
    row: dict[str, object] = {"image_id": image} | ({"rad_id": reader} if reader else {})
    return (
        row
        | {"class_name": finding}
        | dict(zip(("x_min", "y_min", "x_max", "y_max"), corners or [""] * 4, strict=True))
    )


@miniature(
    "vindr-cxr",
    truncated={"train/d4.dicom": "d4"},
)
def prepared(origin: Path) -> None:
    for image in ("a1", "b2", "c3", "d4"):
        write_radiograph(origin / f"train/{image}.dicom", PIXELS, PhotometricInterpretation="MONOCHROME1")
    write_radiograph(origin / "test/e5.dicom", PIXELS, PatientName="Doe^Jane")
    readers = ("R1", "R2", "R3")
    labels = [_labels("a1", reader, "Cardiomegaly") for reader in readers[:2]]
    labels += [_labels("a1", "R3", "Cardiomegaly", "Nodule/Mass", "Edema")]
    labels += [_labels(image, reader, "No finding") for image in ("b2", "d4") for reader in readers]
    labels += [_labels("c3", "R1", "Other lesion")]
    boxes = [
        _box("a1", "R1", "Cardiomegaly", 10, 30, 40, 50),
        _box("a1", "R2", "Cardiomegaly", 12, 32, 42, 52),
        _box("a1", "R3", "Cardiomegaly", 8, 28, 38, 48),
        _box("a1", "R3", "Nodule/Mass", 1, 2, 5, 8),
        _box("b2", "R1", "No finding"),
        _box("c3", "R1", "Other lesion", 1, 2, 5, 8),
    ]
    write_table(origin / "annotations/image_labels_train.csv", labels)
    write_table(origin / "annotations/annotations_train.csv", boxes)
    write_table(origin / "annotations/image_labels_test.csv", [_labels("e5", None, "Pneumothorax")])
    write_table(origin / "annotations/annotations_test.csv", [_box("e5", None, "Pneumothorax", 5, 6, 25, 46)])


def test_boxes_of_three_readers_become_their_mean_in_rows_and_columns(prepared: Prepared):
    row = prepared.rows["a1"]
    assert {entry["target"]: entry["box"] for entry in row["boxes"]} == {
        "cardiomegaly": [0, 30, 10, 1, 50, 40],
        "lung nodule": [0, 2, 1, 1, 8, 5],
    }


def test_a_finding_that_was_ticked_but_not_drawn_is_neither_present_nor_absent(prepared: Prepared):
    row = prepared.rows["a1"]
    assert "pulmonary edema" not in row["targets"] + row["absent"]
    assert len(row["absent"]) == 21 - 3


def test_all_findings_are_absent_where_no_reader_saw_one(prepared: Prepared):
    for key in ("b2", "c3"):
        assert prepared.rows[key]["targets"] == []
        assert len(prepared.rows[key]["absent"]) == 21


def test_the_test_split_is_official_and_its_boxes_are_taken_as_they_are(prepared: Prepared):
    assert prepared.split_of == {"a1": "train", "b2": "train", "c3": "train", "e5": "test"}
    assert prepared.rows["e5"]["boxes"] == [{"target": "pneumothorax", "box": [0, 6, 5, 1, 46, 25]}]


def test_monochrome1_is_inverted_and_the_picture_is_not_transposed(prepared: Prepared):
    upright, inverted = (image_of(prepared.rows[key])[0][0].astype(float) for key in ("e5", "a1"))
    assert upright.shape == (60, 50)
    assert np.corrcoef(upright.ravel(), PIXELS.ravel())[0, 1] > 0.999
    assert np.corrcoef(inverted.ravel(), PIXELS.ravel())[0, 1] < -0.999


def test_no_patient_field_is_copied(prepared: Prepared):
    for path in prepared.result.output.rglob("*"):
        assert path.is_dir() or b"Doe" not in path.read_bytes()
