"""Scores of short answers."""

import pytest

from vividmed.metrics.vqa import Accuracy, ExactMatch, TokenF1


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [("Yes", "yes", 1), ("yes.", "yes", 0), ("no", "yes", 0), ("", "yes", 0)],
)
def test_exact_match_compares_lower_case_text_and_nothing_else(prediction, reference, right):
    assert ExactMatch().compute(predictions=[prediction], references=[reference])["exact_match"] == right


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("The right lung.", "right lung", 1),
        ("right lung and left lung", "right lung", 2 * (2 / 5) / (2 / 5 + 1)),
        ("lung lung", "lung", 2 / 3),
        ("", "lung", 0),
        ("", "", 1),
        ("spleen", "", 0),
        ("", "A", 0),
        ("a", "A", 1),
        ("-", "+", 0),
        ("+", "+", 1),
    ],
)
def test_token_f1_counts_repeated_words(prediction, reference, expected):
    figures = TokenF1().compute(predictions=[prediction], references=[reference])
    assert figures["token_f1"] == pytest.approx(expected)
    if expected in (0, 1):
        open_accuracy = Accuracy().compute(predictions=[prediction], references=[reference])["open_accuracy"]
        assert open_accuracy == expected


def test_closed_and_open_questions_have_figures_of_their_own_and_unparsed_answers_are_counted():
    figures = Accuracy().compute(
        predictions=["Yes, there is a mass.", "It cannot be seen.", "no", "Left lung.", "right lung"],
        references=["yes", "no", "Yes.", "the left lung", "left lung"],
    )
    assert figures["closed_accuracy"] == pytest.approx(1 / 3)
    assert figures["closed_unparsed"] == pytest.approx(1 / 3)
    assert figures["open_accuracy"] == pytest.approx(1 / 2)
    assert figures["accuracy"] == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("Results: liver: yes.", "Results: liver: yes.", 1),
        ("No.", "Results: left lung: no.", 1),
        ("Results: spleen: no.", "Results: liver: yes.", 0),
    ],
)
def test_an_answer_about_one_target_is_closed(prediction, reference, right):
    figures = Accuracy().compute(predictions=[prediction], references=[reference])
    assert figures["closed_accuracy"] == right


def test_without_closed_questions_there_is_no_closed_figure():
    assert "closed_accuracy" not in Accuracy().compute(predictions=["lung"], references=["lung"])
