"""Sides, sizes and numbers that texts state."""

import numpy as np
import pytest

from vividmed.metrics.masks import encode_mask
from vividmed.metrics.statements import Agreement, Laterality


@pytest.mark.parametrize(
    ("prediction", "reference", "accuracy", "unstated"),
    [
        ("Small left pleural effusion.", "Left pleural effusion.", 1, 0),
        ("Right pleural effusion.", "Left pleural effusion.", 0, 0),
        ("Bilateral pleural effusions.", "Left pleural effusion.", 0, 0),
        ("Pleural effusion.", "Left pleural effusion.", None, 1),
        ("Left pleural effusion and right pneumothorax.", "Left effusion. Right pneumothorax.", 1, 0),
        ("A nodule in the left upper lobe.", "Nodule in the right upper lobe.", 0, 0),
        ("No left pleural effusion.", "Right pleural effusion.", None, None),
        ("right", "left", 0, 0),
        ("the left side", "left", 1, 0),
        ("normal", "normal", None, None),
    ],
)
def test_sides_count_where_both_texts_state_them(prediction, reference, accuracy, unstated):
    figures = Laterality().compute(predictions=[prediction], references=[reference])
    for name, expected in (("laterality_accuracy", accuracy), ("laterality_unstated", unstated)):
        assert figures[name] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def drawn(*boxes):
    mask = np.zeros((4, 40, 40), dtype=bool)
    for z, y, x, width in boxes:
        mask[z, y : y + 2, x : x + width] = True
    return {"mask": encode_mask(mask, (5.0, 1.0, 1.0)) if boxes else None, "boxes": []}


def agreement(text, phrases, places, left=(2, 1)):
    report = {"text": text, "phrases": phrases, "places": places, "size": [4, 40, 40], "left": list(left)}
    return Agreement().compute(predictions=[report], references=[report])


LEFT, RIGHT = (1, 10, 25, 10), (1, 10, 5, 10)


@pytest.mark.parametrize(
    ("text", "places", "left", "expected"),
    [
        ("A nodule in the left lung.", [LEFT], (2, 1), 1),
        ("A nodule in the left lung.", [RIGHT], (2, 1), 0),
        ("A nodule in the left lung.", [RIGHT], (2, -1), 1),
        ("A nodule in the left lung.", [LEFT], (), None),
        ("A nodule in both lungs.", [LEFT], (2, 1), None),
        ("A nodule in the left lung.", [], (2, 1), None),
        ("The right lung is clear. A nodule in the left lung.", [LEFT], (2, 1), 1),
    ],
)
def test_the_side_of_a_text_is_compared_with_that_of_its_place(text, places, left, expected):
    figures = agreement(text, ["nodule"], [drawn(*places)], left)
    assert figures["side_agreement"] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 1 cm nodule.", 1),
        ("A nodule of 11.5 mm.", 1),
        ("A 2.5 cm nodule.", 0),
        ("A nodule 3 cm above the diaphragm.", None),
        ("A nodule. The liver measures 15 cm.", None),
    ],
)
def test_sizes_agree_within_a_fifth(text, expected):
    figures = agreement(text, ["nodule"], [drawn(LEFT)])
    assert figures["size_agreement"] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


@pytest.mark.parametrize(
    ("phrase", "expected"), [("two nodules", 1), ("single nodule", 0), ("nodules", None)]
)
def test_numbers_agree_with_parts_of_the_mask(phrase, expected):
    figures = agreement(f"There are {phrase}.", [phrase], [drawn(LEFT, RIGHT)])
    assert figures["count_agreement"] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)
