import json
from pathlib import Path

from tests.fixtures.miniatures import Prepared, picture, write_picture
from tests.fixtures.prepared_miniatures import miniature

REPORT = "Findings: There is a left pleural effusion, the heart is enlarged. A right rib is seen.\nImpression: Effusion."
FOLDER = "p10/p10000001/s50000001"
BOXES = {
    "pleural effusion": [[20, 30, 38, 46], [2, 30, 9, 46]],
    "cardiomegaly": [[10.4, 20.0, 30.6, 40.0]],
    "humidity": [],
}


def tag(phrase: str, target: str) -> dict[str, object]:
    start = REPORT.index(phrase)
    return {"phrase": phrase, "target": target, "start": start, "end": start + len(phrase)}


TAGS = [
    tag("heart is enlarged", "cardiomegaly"),
    tag("left pleural effusion", "pleural effusion"),
    tag("right rib", "right rib"),
]


def record(folder: str, planes: dict[str, str | None]) -> dict[str, object]:
    images = [f"data/processed/MIMIC-CXR/files/{folder}/{dicom}.pt.zst" for dicom in planes]
    return {"image": images, "plane": list(planes.values()), "ref_report": REPORT, "tags": TAGS}


@miniature(
    "mimic-cxr-grounded",
    truncated={"image/p11/p11000002/s50000002/dd-4.jpg": "dd-4"},
    also_failing=("ff-6",),
)
def prepared(origin: Path) -> None:
    other = "p11/p11000002/s50000002"
    for name in (f"{FOLDER}/aa-1", f"{FOLDER}/bb-2", f"{other}/cc-3", f"{other}/dd-4", f"{other}/ff-6"):
        write_picture(origin / f"image/{name}.jpg", picture((48, 40)))
    (origin / f"image/{FOLDER}/aa-1_box.json").write_text(json.dumps(BOXES))
    (origin / f"image/{other}/cc-3_box.json").write_text("{}")
    (origin / f"image/{other}/ff-6_box.json").write_text('{"cardiomegaly": [[1, 2, 3')
    train = [
        record(FOLDER, {"aa-1": "PA", "bb-2": "lateral"}),
        record("p12/p12000003/s50000003", {"ee-5": "lateral"}),
    ]
    (origin / "train.json").write_text(json.dumps(train))
    (origin / "test.json").write_text(json.dumps([record(other, {"cc-3": "AP", "dd-4": "PA", "ff-6": "PA"})]))


def test_every_phrase_has_the_boxes_of_its_own_target(prepared: Prepared):
    row = prepared.rows["aa-1"]
    assert [(phrase["text"].strip(), phrase["targets"]) for phrase in row["phrases"]] == [
        ("left pleural effusion", ["pleural effusion"]),
        ("heart is enlarged", ["cardiomegaly"]),
        ("right rib", []),
    ]
    assert [(entry["target"], entry["box"]) for entry in row["boxes"]] == [
        ("pleural effusion", [0, 30, 20, 1, 46, 38]),
        ("pleural effusion", [0, 30, 2, 1, 46, 9]),
        ("cardiomegaly", [0, 20, 10, 1, 40, 31]),
    ]


def test_the_report_without_markers_is_the_reference_report(prepared: Prepared):
    assert prepared.rows["aa-1"]["report"].replace("<p>", "").replace("</p>", "") == REPORT


def test_frontal_images_are_rows_and_keep_phrases_without_boxes(prepared: Prepared):
    assert prepared.split_of == {"aa-1": "train", "cc-3": "test"}
    row = prepared.rows["cc-3"]
    assert row["patient"] == "mimic-cxr:p11000002"
    assert row["boxes"] == []
    assert [phrase["targets"] for phrase in row["phrases"]] == [[], [], []]


def test_studies_without_frontal_image_are_left_out_and_unreadable_boxes_fail(prepared: Prepared):
    assert set(prepared.result.left_out) == {"s50000003"}
    assert "ff-6_box.json" in prepared.result.failed["ff-6"]
