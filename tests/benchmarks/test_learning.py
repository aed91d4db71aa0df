"""Phantoms and metrics of the learning benchmarks."""

from typing import Any

import numpy as np
import pytest

from benchmarks.learning.demo import majority
from benchmarks.learning.measures import (
    average_precision,
    best_ious,
    dice,
    statements,
    true_statements,
)
from benchmarks.learning.phantom_studies import (
    SIZE,
    localization_row,
    make_phantom,
    marked_report,
    report_row,
)
from benchmarks.learning.table import Figure, conclude
from vividmed.data.schema import validate_row
from vividmed.processing.geometry import plan_resize
from vividmed.processing.grounded_text import parse_grounded_text

PHANTOMS = [make_phantom(number) for number in range(40)]
TRUTHS = [np.array(phantom.boxes, dtype=float).reshape(-1, 6) for phantom in PHANTOMS]
SURE = [np.ones(len(truth)) for truth in TRUTHS]


def test_phantoms_are_functions_of_seed_and_number():
    again = make_phantom(3)
    assert np.array_equal(again.volume, PHANTOMS[3].volume)
    assert not np.array_equal(make_phantom(3, seed=1).volume, again.volume)
    assert {len(phantom.nodules) for phantom in PHANTOMS} == {0, 1, 2}


def test_rows_are_valid_and_reports_true():
    for phantom in PHANTOMS:
        validate_row("localization", localization_row(phantom))
        validate_row("grounded_report", report_row(phantom))
        assert statements(parse_grounded_text(marked_report(phantom)).text) == true_statements(phantom)


def test_sides_are_those_of_the_patient_for_any_axes_of_the_volume():
    for phantom in PHANTOMS:
        for name, mask in phantom.organs.items():
            z, y, x = np.argwhere(mask).mean(0)
            right = (phantom.affine @ [x, y, z, 1])[0]
            middle = (phantom.affine @ [(SIZE[2] - 1) / 2, 0, 0, 1])[0]
            if "lung" in name:
                # In RAS+ the first coordinate grows towards the patient's right.
                assert (right < middle) == name.startswith("left")
        assert plan_resize(
            SIZE,
            affine=phantom.affine,
            oriented=True,
            patch_size=(4, 16, 16),
            pool_size=(2, 2, 2),
            max_image_tokens=8,
            max_slice_tokens=2,
        ).model_size == (8, 64, 64)


def test_nodules_lie_in_the_lung_that_the_report_names():
    for phantom in PHANTOMS:
        for nodule in phantom.nodules:
            lungs = phantom.organs[f"{phantom.side} lung"] | phantom.organs.get("heart", False)
            assert (nodule & lungs).sum() > 0.8 * nodule.sum()


def test_average_precision_counts_every_box_once_and_in_its_place():
    assert average_precision(TRUTHS, SURE, TRUTHS) == pytest.approx(1)
    assert average_precision([truth[:0] for truth in TRUTHS], [s[:0] for s in SURE], TRUTHS) == 0
    far = [truth + 20 for truth in TRUTHS]
    assert average_precision(far, SURE, TRUTHS) == 0
    doubled = [np.concatenate([truth + 20, truth]) for truth in TRUTHS]
    scores = [np.concatenate([s, s / 2]) for s in SURE]
    assert 0 < average_precision(doubled, scores, TRUTHS) < 0.7


def test_dice_and_best_iou_of_known_overlaps():
    mask = np.zeros((2, 4, 4), dtype=bool)
    mask[:, :2] = True
    assert dice(mask, mask) == 1
    assert dice(None, mask) == 0
    assert dice(~mask, mask) == 0
    box = np.array([[0.0, 0, 0, 2, 2, 2]])
    assert best_ious(np.zeros((0, 6)), box) == [0]
    assert best_ious(np.array([[0.0, 0, 0, 2, 2, 1], [9, 9, 9, 10, 10, 10]]), box) == pytest.approx([0.5])


def test_statements_are_read_from_any_text():
    assert statements("There is one small nodule in the left lung.") == {
        "count": "one",
        "size": "small",
        "side": "left",
    }
    assert statements("The heart is visible. No nodule is seen.") == {"count": "no"}
    assert statements("nodule nodule in") == {}


def test_missed_target_gives_exit_status_one(capsys):
    assert conclude([Figure("a", 0.9, 0.8), Figure("b", 0.1)], started=0) == 0
    assert conclude([Figure("a", 0.7, 0.8)], started=0) == 1
    assert "MISSED" in capsys.readouterr().out


def test_the_most_frequent_answer_is_counted_for_each_structure():
    def row(kind: str, question: str, answer: str) -> dict[str, Any]:
        return {"kind": kind, "messages": [{"content": question}, {"content": answer}]}

    rows = [row("modality", "Modality?", answer) for answer in ("CT.", "CT.", "CT.", "MRI.")]
    rows += [row("presence", "Liver?", answer) for answer in ("Yes.", "Yes.", "No.")]
    rows += [row("presence", "Heart?", answer) for answer in ("No.", "No.", "No.")]
    assert majority(rows) == {"modality": 3 / 4, "presence": 5 / 6}
