"""Predictions of a data set by several processes, one after the other in the tests, and by what comes after them."""

import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from tests.inference.test_predictor import MODEL, rows
from vividmed.errors import VividMedError
from vividmed.inference import evaluation
from vividmed.inference.evaluation import predict_dataset
from vividmed.metrics.predictions import read_predictions

PROTOCOL = "description: d\nreport_prompt: Report?\nmax_new_tokens: 2\nunit: image\n"


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Predict as one of several processes."""
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text(PROTOCOL)
    monkeypatch.setattr(evaluation, "load_task_rows", lambda task, dataset, split: rows(task))

    def ask(rank, processes, model=MODEL, **options):
        state = SimpleNamespace(
            process_index=rank,
            num_processes=processes,
            is_main_process=rank == 0,
            wait_for_everyone=lambda: None,
            device="cpu",
        )
        monkeypatch.setattr(evaluation, "PartialState", lambda **_: state)
        settings = {"task": "vqa", "protocol": str(protocol), "batch_size": 2} | options
        return predict_dataset(str(model), tmp_path / "out", **settings)

    return ask


def test_any_number_of_processes_share_the_rows_and_another_number_finishes_them(ask, tmp_path):
    # Three rows of two questions: the second of three processes was killed before it began.
    assert ask(0, 3) == (2, 0)
    assert ask(2, 3) == (2, 2)
    assert ask(0, 1) == (2, 4)
    assert ask(0, 2)[0] == ask(1, 2)[0] == 0
    ids = [prediction.id for prediction in read_predictions(tmp_path / "out")]
    assert len(ids) == len(set(ids)) == 6


def test_a_folder_keeps_the_predictions_of_one_run(ask):
    ask(0, 1, max_rows=1)
    with pytest.raises(VividMedError, match="has predictions of another run"):
        ask(0, 1)


def test_predictions_of_earlier_weights_are_not_taken_for_those_of_a_model_trained_again(ask, tmp_path):
    model = shutil.copytree(MODEL, tmp_path / "model")
    ask(0, 1, model)
    weights = load_file(model / "model.safetensors")
    name = "lm_head.weight"
    save_file(weights | {name: weights[name] * 2}, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VividMedError, match=r"another run \(weights: .* delete this one"):
        ask(0, 1, model)


def test_answers_are_not_scored_against_references_that_changed_since(ask, monkeypatch):
    ask(0, 1)
    changed = rows("vqa").map(
        lambda row: {"messages": [{**turn, "content": f"{turn['content']}!"} for turn in row["messages"]]}
    )
    monkeypatch.setattr(evaluation, "load_task_rows", lambda *_: changed)
    with pytest.raises(VividMedError, match=r"another run \(rows: "):
        ask(0, 1)


def test_a_damaged_record_of_a_run_is_named(ask, tmp_path):
    ask(0, 1)
    (tmp_path / "out" / "run.json").write_text("[]")
    with pytest.raises(VividMedError, match=r"run\.json: is damaged"):
        ask(0, 1)
