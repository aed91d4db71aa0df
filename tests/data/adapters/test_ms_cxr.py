from pathlib import Path

from tests.fixtures.miniatures import (
    Prepared,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters.mimic_cxr import JPG

BOXES = [  # dicom, subject, category, text, x, y, w, h
    ("aa-1", "10000001", "Pneumothorax", "small  right pneumothorax", 4, 6, 10, 12),
    ("aa-1", "10000001", "Atelectasis", "Bibasilar atelectasis.", 3, 30, 8, 9),
    ("aa-1", "10000001", "Atelectasis", "Bibasilar atelectasis.", 25, 30, 9, 9),
    ("aa-1", "10000001", "Atelectasis", "linear atelectasis", 20, 10, 5, 2),
    ("bb-2", "11000002", "Lung Opacity", "left opacity", 22.4, 9.6, 30, 12),  # beyond the right edge
    ("cc-3", "12000003", "Edema", "mild edema", 1, 2, 3, 4),
]
SPLITS = {"aa-1": "train", "bb-2": "validate", "cc-3": "test"}


def image(dicom: str, subject: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s50000001/{dicom}.jpg"


@miniature(
    "ms-cxr",
    truncated={"MIMIC-CXR-JPG/files/p12/p12000003/s50000001/cc-3.jpg": "cc-3"},
)
def prepared(origin: Path) -> None:
    for dicom, subject in {row[:2] for row in BOXES}:
        write_picture(origin / JPG / image(dicom, subject), picture((48, 40)))
    rows = [
        {"category_name": category, "label_text": text, "path": image(dicom, subject), "dicom_id": dicom}
        | dict(zip("xywh", corners, strict=True))
        | {"image_width": 40, "image_height": 48, "split": "train"}
        for dicom, subject, category, text, *corners in BOXES
    ]
    write_table(origin / "MS-CXR/MS_CXR_Local_Alignment_v1.1.0.csv", rows)
    write_table(
        Path(origin / JPG / "mimic-cxr-2.0.0-split.csv"),
        [
            {"dicom_id": dicom, "study_id": "50000001", "subject_id": "1", "split": s}
            for dicom, s in SPLITS.items()
        ],
    )


def test_every_phrase_keeps_its_own_boxes(prepared: Prepared):
    row = prepared.rows["aa-1"]
    assert row["report"] == (
        "<p>small right pneumothorax</p>. <p>Bibasilar atelectasis</p>. <p>linear atelectasis</p>."
    )
    boxes = {
        phrase["text"]: [entry["box"] for entry in row["boxes"] if entry["target"] in phrase["targets"]]
        for phrase in row["phrases"]
    }
    assert boxes == {
        "small right pneumothorax": [[0, 6, 4, 1, 18, 14]],
        "Bibasilar atelectasis": [[0, 30, 3, 1, 39, 11], [0, 30, 25, 1, 39, 34]],
        "linear atelectasis": [[0, 10, 20, 1, 12, 25]],
    }
    assert {entry["target"].partition(" #")[0] for entry in row["boxes"]} == {"pneumothorax", "atelectasis"}


def test_boxes_end_at_the_edge_of_the_image(prepared: Prepared):
    (entry,) = prepared.rows["bb-2"]["boxes"]
    assert entry["target"].startswith("pulmonary opacification")
    assert entry["box"] == [0, 10, 22, 1, 22, 40]


def test_splits_and_patients_are_those_of_mimic_cxr(prepared: Prepared):
    assert prepared.split_of == {"aa-1": "train", "bb-2": "validation"}
    assert prepared.rows["aa-1"]["patient"] == "mimic-cxr:p10000001"
