import json
from pathlib import Path

from tests.fixtures.miniatures import Prepared, picture, write_picture
from tests.fixtures.prepared_miniatures import miniature

QUESTIONS = [  # image, organ, phrase type, question, answer
    ("synpic100.jpg", "CHEST", "freeform", "Is the heart enlarged?", "Yes"),
    ("synpic200.jpg", "HEAD", "para", "Which plane\tis shown?", "Axial "),
    ("synpic100.jpg", "CHEST", "test_freeform", "How many nodules are there?", 3),
    ("synpic100.jpg", "CHEST", "freeform", "Which side?", "Left"),
    ("synpic300.jpg", "ABD", "freeform", "Is there contrast?", ""),
    ("synpic400.jpg", "ABD", "test_para", "Is the liver normal?", "yes"),
    ("synpic500.jpg", "ABD", "freeform", "Is the spleen normal?", "yes"),
]


@miniature(
    "vqa-rad",
    truncated={"VQA_RAD Image Folder/synpic500.jpg": "synpic500"},
)
def prepared(origin: Path) -> None:
    for image in {row[0] for row in QUESTIONS}:
        write_picture(origin / "VQA_RAD Image Folder" / image, picture())
    names = ("image_name", "image_organ", "phrase_type", "question", "answer")
    records = [dict(zip(names, row, strict=True)) for row in QUESTIONS]
    (origin / "VQA_RAD Dataset Public.json").write_text(json.dumps(records))


def test_questions_are_grouped_by_image_and_answers_are_text(prepared: Prepared):
    asked = {key: [message["content"] for message in row["messages"]] for key, row in prepared.rows.items()}
    assert asked == {
        "synpic100": ["Is the heart enlarged?", "Yes", "Which side?", "Left"],
        "synpic100-test": ["How many nodules are there?", "3"],
        "synpic200": ["Which plane is shown?", "Axial"],
        "synpic400-test": ["Is the liver normal?", "yes"],
    }


def test_the_official_split_of_questions_stands(prepared: Prepared):
    assert prepared.split_of == {
        "synpic100": "train",
        "synpic100-test": "test",
        "synpic200": "train",
        "synpic400-test": "test",
    }


def test_the_modality_is_told_only_where_the_region_decides_it(prepared: Prepared):
    assert {key: row["modality"] for key, row in prepared.rows.items()} == {
        "synpic100": "X-ray",
        "synpic100-test": "X-ray",
        "synpic200": None,
        "synpic400-test": "CT",
    }


def test_an_image_without_answers_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["synpic300"]
