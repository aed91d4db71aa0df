import pytest

from vividmed.data.laterality import has_side, is_swappable, swap_sides, swap_text

PAIRS = [
    ("left pleural effusion", "right pleural effusion"),
    ("Left-sided chest tube", "Right-sided chest tube"),
    ("left-to-right midline shift", "right-to-left midline shift"),
    ("leftward mediastinal shift", "rightward mediastinal shift"),
    ("LEFT LOWER LOBE", "RIGHT LOWER LOBE"),
    ("LUL nodule and RLL consolidation", "RUL nodule and LLL consolidation"),
    ("RUQ pain", "LUQ pain"),
    ("Rt hilum", "Lt hilum"),
    ("thoracic levoscoliosis", "thoracic dextroscoliosis"),
    (
        "a small<p> left pneumothorax</p>, right lung clear",
        "a small<p> right pneumothorax</p>, left lung clear",
    ),
    ("The left hilum is higher than the right.", "The right hilum is higher than the left."),
    ("left ventricle and left kidney", "left ventricle and right kidney"),
    ("Right atrial enlargement; right effusion", "Right atrial enlargement; left effusion"),
]
KEPT = [
    "bilateral effusions in both lungs",
    "The left lobe of the liver is enlarged.",
    "right hepatic lobe",
    "left lateral segment of the liver",
    "calcified left anterior descending and right coronary arteries",
    "right bundle branch block",
    "right heart failure",
    "left-to-right intracardiac shunt",
    "The line was left in place and the wound left open.",
    "The patient left against medical advice.",
    "The tube is at a right angle, which is all right.",
    "cleft, bright, upright, aleft, Wright",
    "ill-defined, Lll, rul",
]


@pytest.mark.parametrize(("text", "mirrored"), PAIRS)
def test_sides_are_swapped_whole_with_their_case(text, mirrored):
    assert swap_text(text) == mirrored
    assert swap_text(mirrored) == text


@pytest.mark.parametrize("text", KEPT)
def test_words_that_are_not_a_side_of_the_body_stay(text):
    assert swap_text(text) == text


def test_swapping_keeps_everything_but_sides_in_place():
    report = "Findings:  Left\tbasal\nopacity (right? no, LEFT).\r\n"
    assert swap_text(report) == "Findings:  Right\tbasal\nopacity (left? no, RIGHT).\r\n"


@pytest.mark.parametrize(
    "text",
    ["right middle lobe", "RML opacity", "middle lobe of the right lung", "the lingula", "lingular segment"],
)
def test_structures_of_only_one_side_cannot_be_mirrored(text):
    assert not is_swappable(f"There is atelectasis in {text}.")


def test_other_texts_can_be_mirrored():
    assert is_swappable("Left upper lobe and middle mediastinum, right lower lobe.")


def test_names_are_swapped_without_regard_to_context():
    assert swap_sides("left ventricle") == "right ventricle"
    assert has_side("head of left femur")
    assert not has_side("bright copyright")
