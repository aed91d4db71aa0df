"""A run resumes exactly, or says what differs."""

import json

import pytest

from tests.fixtures.training import make_row, make_rows, small_model, small_processor, small_trainer
from vividmed.errors import VividMedError
from vividmed.training.runs.exact_resume import RUN_RECORD, hash_rows

SETTINGS = {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with a checkpoint at each of its two steps."""
    folder = tmp_path_factory.mktemp("run")
    small_trainer(folder, **SETTINGS).train()
    return folder


def resume(run, folder, **changes):
    trainer = small_trainer(folder, **{**SETTINGS, **changes})
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-1"))
    return trainer


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 7}, "seed is 7 instead of 42"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size is 4 instead of 2"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is 2 instead of 1"),
        ({"learning_rate": 0.5}, "learning_rate is 0.5 instead of 0.01"),
        ({"max_steps": 3}, "max_steps is 3 instead of 2"),
        ({"optim": "sgd"}, "optim is sgd instead of adamw"),
        ({"muon": True}, "muon is True instead of False"),
        ({"rows": make_rows(range(1, 13))}, "the training data differs"),
        ({"packing": True}, "packing is True instead of False"),
    ],
)
def test_run_that_differs_from_its_checkpoint_is_refused(run, tmp_path, changes, difference):
    with pytest.raises(
        VividMedError, match=f"cannot be resumed exactly: .*{difference}.*--allow_inexact_resume"
    ):
        resume(run, tmp_path, **changes)


def test_other_number_of_processes_is_refused(run, tmp_path):
    record = json.loads((run / "checkpoint-1" / RUN_RECORD).read_text())
    (run / "checkpoint-1" / RUN_RECORD).write_text(json.dumps(record | {"processes": 2}))
    with pytest.raises(VividMedError, match="processes is 1 instead of 2"):
        resume(run, tmp_path)
    (run / "checkpoint-1" / RUN_RECORD).write_text(json.dumps(record))


def test_flag_accepts_another_result_and_other_logging_needs_none(run, tmp_path):
    assert resume(run, tmp_path, seed=7, allow_inexact_resume=True).state.global_step == 2
    assert resume(run, tmp_path, logging_steps=2, dataloader_num_workers=1).state.global_step == 2


def test_checkpoint_without_its_optimizer_is_refused(tmp_path):
    small_trainer(tmp_path, **SETTINGS, save_only_model=True).train()
    with pytest.raises(VividMedError, match="no optimizer state"):
        resume(tmp_path, tmp_path / "second")


def test_hash_of_rows_follows_their_text_and_order_but_not_how_they_are_stored(tmp_path):
    rows = make_rows(range(4))
    rows.to_parquet(tmp_path / "rows.parquet")
    assert hash_rows(rows.from_parquet(str(tmp_path / "rows.parquet"))) == hash_rows(rows)
    assert hash_rows(rows.select([1, 0, 2, 3])) != hash_rows(rows)
    assert hash_rows(make_rows([0, 1, 2]).from_list([make_row(0)], features=rows.features)) != hash_rows(rows)


def test_weights_of_another_size_are_refused(run, tmp_path):
    model = small_model(small_processor())
    model.model.vision.requires_grad_(False)
    with pytest.raises(VividMedError, match="trainable weights is"):
        resume(run, tmp_path, model=model)
