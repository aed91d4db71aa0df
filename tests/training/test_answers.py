import pytest

from tests.fixtures.training import make_row, small_model, small_processor
from vividmed.training.answers import Accuracy, generate_answers, score_closed


def row(kind: str, answer: str) -> dict:
    return {
        "kind": kind,
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}],
    }


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("The modality of this image is CT.", 1),
        ("the modality  of this image is ct", 1),
        ("The modality of this image is MRI.", 0),
        ("The modality of this image is CT. The modality of this image is MRI.", 0),
        ("", 0),
    ],
)
def test_modality_answer_must_be_the_reference(answer, right):
    scores = score_closed([row("modality", "The modality of this image is CT.")], [answer])
    assert scores == {"modality": Accuracy(right, 1)}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Results: liver: yes, left lung: no.", 2),
        ("Results: left lung: no, liver: yes.", 2),
        ("Results: liver: yes, left lung: yes.", 1),
        ("Results: liver: no.", 0),
        ("Results: spleen: yes.", 0),
        ("yes", 0),
    ],
)
def test_presence_answer_counts_each_structure(answer, right):
    scores = score_closed([row("presence", "Results: liver: yes, left lung: no.")], [answer])
    assert scores == {"presence": Accuracy(right, 2)}


def test_other_kinds_are_not_scored():
    assert score_closed([row("report", "Clear lungs.")], ["Clear lungs."]) == {}


def test_accuracy_reads_as_count_and_share():
    assert str(Accuracy(3, 4)) == "3/4 (75.0 %)"


def test_answers_do_not_depend_on_the_batch_and_keep_the_mode_of_the_model():
    processor = small_processor()
    model = small_model(processor).train()
    rows = [make_row(number) for number in range(5)]
    together = generate_answers(model, processor, rows, max_new_tokens=5, batch_size=5)
    apart = generate_answers(model, processor, rows, max_new_tokens=5, batch_size=1)
    assert together == apart
    assert len(together) == 5
    assert any(together)
    assert model.training
