import json
from pathlib import Path

from tests.fixtures.miniatures import Prepared, picture, write_picture
from tests.fixtures.prepared_miniatures import miniature

PARTS = {  # part: image -> modality, questions (question, answer, language)
    "train": {
        "xmlab0": (
            "MRI",
            [("What modality is it?", "MRI", "en"), ("这是什么?", "磁共振", "zh"), ("Is it dark?", "", "en")],
        ),
        "xmlab1": ("X-Ray", [("Where is the\nheart?", "Center", "en")]),
        "xmlab5": ("CT", [("这是什么?", "肝", "zh")]),
    },
    "validate": {"xmlab2": ("CT", [("Is the liver healthy?", "No", "en")])},
    "test": {
        "xmlab3": ("CT", [("How many kidneys?", 2, "en")]),
        "xmlab4": ("CT", [("Which organ is it?", "Liver", "en")]),
    },
}
DETECTIONS = {
    "xmlab0": [{"Brain": [4.0, 6.0, 20.0, 30.0]}],
    "xmlab1": [
        {"Left Lung": [20.0, 5.0, 15.0, 30.0]},
        {"Right Lung": [2.4, 5.0, 15.2, 30.0]},
        {"Gizzard": [1, 1, 2, 2]},
    ],
    "xmlab2": [{"Gizzard": [1.0, 1.0, 2.0, 2.0]}],
    "xmlab3": [],
    "xmlab4": [{"Liver": [1.0, 2.0, 3.0, 4.0]}],
    "xmlab5": [{"Liver": [5.0, 6.0, 7.0, 8.0]}],
}


def write_slake(origin: Path) -> None:
    for part, images in PARTS.items():
        questions = [
            {
                "img_name": f"{image}/source.jpg",
                "question": q,
                "answer": a,
                "q_lang": lang,
                "modality": modality,
            }
            for image, (modality, asked) in images.items()
            for q, a, lang in asked
        ]
        origin.mkdir(exist_ok=True, parents=True)
        (origin / f"{part}.json").write_text(json.dumps(questions, ensure_ascii=False), encoding="utf-8")
    for seed, (image, detections) in enumerate(DETECTIONS.items()):
        write_picture(origin / f"imgs/{image}/source.jpg", picture(seed=seed))
        (origin / f"imgs/{image}/detection.json").write_text(json.dumps(detections))


@miniature("slake", truncated={"imgs/xmlab4/source.jpg": "xmlab4"})
def questions(origin: Path) -> None:
    write_slake(origin)


@miniature("slake-regions", truncated={"imgs/xmlab4/source.jpg": "xmlab4"})
def regions(origin: Path) -> None:
    write_slake(origin)


def test_english_questions_with_answers_are_kept_the_last_image_of_each_part_too(questions: Prepared):
    asked = {key: [message["content"] for message in row["messages"]] for key, row in questions.rows.items()}
    assert asked == {
        "xmlab0": ["What modality is it?", "MRI"],
        "xmlab1": ["Where is the heart?", "Center"],
        "xmlab2": ["Is the liver healthy?", "No"],
        "xmlab3": ["How many kidneys?", "2"],
    }
    assert {row["kind"] for row in questions.rows.values()} == {"vqa"}


def test_the_modality_is_a_name_and_not_a_letter(questions: Prepared):
    assert {key: row["modality"] for key, row in questions.rows.items()} == {
        "xmlab0": "MRI",
        "xmlab1": "X-ray",
        "xmlab2": "CT",
        "xmlab3": "CT",
    }


def test_splits_are_official_and_the_same_for_questions_and_boxes(questions: Prepared, regions: Prepared):
    assert questions.split_of == {
        "xmlab0": "train",
        "xmlab1": "train",
        "xmlab2": "validation",
        "xmlab3": "test",
    }
    assert regions.split_of == {"xmlab0": "train", "xmlab1": "train", "xmlab5": "train"}
    assert regions.rows["xmlab0"]["patient"] == questions.rows["xmlab0"]["patient"] == "slake:xmlab0"


def test_boxes_are_corners_in_rows_and_columns_and_unknown_names_are_left_out(regions: Prepared):
    assert {entry["target"]: entry["box"] for entry in regions.rows["xmlab1"]["boxes"]} == {
        "left lung": [0, 5, 20, 1, 35, 35],
        "right lung": [0, 5, 2, 1, 35, 18],
    }
    assert regions.rows["xmlab1"]["absent"] == []


def test_images_without_text_or_targets_are_left_out(questions: Prepared, regions: Prepared):
    assert list(questions.result.left_out) == ["xmlab5"]
    assert set(regions.result.left_out) == {"xmlab2", "xmlab3"}
