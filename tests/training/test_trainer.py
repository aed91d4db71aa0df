import json

import pytest
import torch

from tests.fixtures.training import (
    logged,
    make_row,
    make_rows,
    small_arguments,
    small_model,
    small_processor,
    small_trainer,
)
from vividmed.data.batches.collator import VividMedCollator
from vividmed.errors import VividMedError
from vividmed.training.callbacks import LossCurve, MetricsFile, SampleAnswers
from vividmed.training.step_statistics import NonFiniteLossError
from vividmed.training.trainer import VividMedTrainer


def test_accumulated_small_batches_train_like_one_large_batch(tmp_path):
    large = small_trainer(tmp_path / "large", per_device_train_batch_size=4)
    small = small_trainer(tmp_path / "small", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    large.train()
    small.train()
    assert logged(small) == pytest.approx(logged(large), abs=1e-5)
    assert logged(small, "grad_norm") == pytest.approx(logged(large, "grad_norm"), rel=1e-4)
    for ours, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("strategy", "sorted_together"), [("group_by_length", 32), ("random", 1)])
def test_the_strategy_decides_how_many_batches_are_sorted_by_length(strategy, sorted_together, tmp_path):
    trainer = small_trainer(tmp_path, train_sampling_strategy=strategy)
    trainer.get_train_dataloader()
    assert trainer.order.pool_size == sorted_together


def test_packed_batches_train_like_padded_ones(tmp_path):
    padded = small_trainer(tmp_path / "padded")
    packed = small_trainer(tmp_path / "packed", packing=True)
    padded.train()
    packed.train()
    assert logged(packed) == pytest.approx(logged(padded), abs=1e-5)


def test_loss_is_per_supervised_token_of_the_whole_step(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=1)
    trainer.train()
    keys = list(trainer.order)[:4]
    trainer.order.set_epoch(0)
    fresh = small_trainer(tmp_path)
    batch = fresh.data_collator([fresh.train_dataset[key] for key in keys])
    loss = fresh.model.train()(**fresh._model_inputs(batch)).loss
    assert logged(trainer)[0] == pytest.approx(loss.item(), abs=1e-6)


def test_evaluation_loss_does_not_depend_on_the_batch_size(tmp_path):
    losses = [
        small_trainer(tmp_path, per_device_eval_batch_size=size).evaluate()["eval_loss"] for size in (1, 3, 7)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


def test_log_lines_contain_parts_of_the_loss_and_throughput(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=4, logging_steps=2)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["lm_loss"] == pytest.approx(line["loss"], abs=1e-6)
        assert line["tokens_per_second"] > line["samples_per_second"] > 0
        assert 0 <= line["data_wait_share"] <= 1
        assert line["peak_memory_gib"] > 0


def test_weight_decay_applies_only_to_linear_and_convolution_weights(tmp_path):
    trainer = small_trainer(tmp_path)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    names = {name for name, _ in trainer.model.named_parameters()}
    assert {"lm_head.weight", "model.vision.patch_embedding.proj.weight"} <= decayed < names
    assert "model.layers.0.self_attn.vision_expert_query_key_value.weight" in decayed
    kept = ("bias", "norm", "embed_tokens", "cls_", "position_embedding", "boi", "eoi")
    assert not [name for name in decayed if any(part in name for part in kept)]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_repeats_the_unbroken_one_to_the_bit(tmp_path, workers):
    # Four steps an epoch of three: the checkpoint at step 2 is in the middle of the first, that at 4 in the second.
    settings = {
        "max_steps": 7,
        "dataloader_num_workers": workers,
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
    }
    settings |= {"per_device_train_batch_size": 2, "eval_strategy": "steps", "eval_steps": 3}
    unbroken = small_trainer(tmp_path / "unbroken", **settings)
    unbroken.train()
    for step in (2, 4) if workers == 0 else (4,):
        resumed = small_trainer(tmp_path / "unbroken", **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "unbroken" / f"checkpoint-{step}"))
        assert logged(resumed) == logged(unbroken)
        for ours, theirs in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_training_after_an_evaluation_equals_training_without_one(tmp_path):
    alone, evaluated = small_trainer(tmp_path / "a"), small_trainer(tmp_path / "b")
    evaluated.evaluate()
    assert not getattr(alone.model, "_is_accelerate_prepared", False)
    alone.train()
    evaluated.train()
    assert logged(evaluated) == logged(alone)


def test_loss_that_is_not_finite_stops_the_run_names_the_rows_and_saves_nothing(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=6, save_steps=1, logging_steps=3)
    collate = trainer.data_collator

    def poison(rows):
        batch = collate(rows)
        if any(row["epoch"] == 1 for row in rows):
            batch["label_weights"] = batch["label_weights"] * float("nan")
        return batch

    trainer.data_collator = poison
    with pytest.raises(NonFiniteLossError, match=r"step 4 \(.*lm_loss = nan.*row-\d+"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
    ]


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=1, logging_strategy="no", save_strategy="no")
    trainer.train()
    with torch.no_grad():
        trainer.model.lm_head.weight[0, 0] = float("inf")
    for save in (lambda: trainer._save_checkpoint(trainer.model, None), trainer.save_final):
        with pytest.raises(VividMedError, match="weights are no longer finite"):
            save()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_loss_that_is_not_finite_without_logs_or_checkpoints_leaves_no_model(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=1, logging_strategy="no", save_strategy="no")
    collate = trainer.data_collator

    def poison(rows):
        batch = collate(rows)
        return {**batch, "label_weights": batch["label_weights"] * float("nan")}

    trainer.data_collator = poison
    trainer.train()
    with pytest.raises(NonFiniteLossError, match="step 1"):
        trainer.save_final()
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("strategies", [{}, {"save_strategy": "epoch", "eval_strategy": "epoch"}])
def test_run_resumed_at_its_last_step_stays_as_it_is(tmp_path, strategies):
    # Three steps an epoch: the fourth is in the middle of the second epoch.
    settings = {"max_steps": 4, "save_steps": 4, "gradient_accumulation_steps": 2} | strategies
    settings["per_device_train_batch_size"] = 2
    finished = small_trainer(tmp_path, **settings)
    finished.train()
    finished.save_final()
    weights = (tmp_path / "model.safetensors").read_bytes()
    for _ in range(2):
        (checkpoint,) = sorted(tmp_path.glob("checkpoint-4"))
        resumed = small_trainer(tmp_path, **settings)
        resumed.train(resume_from_checkpoint=str(checkpoint))
        resumed.save_final()
        assert resumed.state.global_step == 4
        assert (tmp_path / "model.safetensors").read_bytes() == weights
        assert [line["step"] for line in resumed.state.log_history if "loss" in line] == [1, 2, 3, 4]
        assert (
            len(resumed.state.log_history) == len(finished.state.log_history) - 1
        )  # no summary of zero steps


def test_row_that_cannot_be_prepared_stops_the_run_with_its_id(tmp_path):
    rows = make_rows(range(4))
    bad = make_row(4) | {"id": "broken", "messages": [{"role": "user", "content": "Only a question?"}]}
    rows = make_rows([0]).from_list([*rows, bad], features=rows.features)
    with pytest.raises(VividMedError, match="row broken"):
        small_trainer(tmp_path, rows=rows).train()


def test_run_leaves_metrics_answers_and_a_loss_curve(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2)
    samples = [make_row(30), make_row(31)]
    for callback in (
        MetricsFile(),
        LossCurve(),
        SampleAnswers(trainer.processing_class, samples, max_new_tokens=4),
    ):
        trainer.add_callback(callback)
    trainer.train()
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in metrics if "eval_loss" in line] == [2, 4]
    answers = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["id"]) for line in answers] == [
        (2, "row-30"), (2, "row-31"), (4, "row-30"), (4, "row-31"),
    ]  # fmt: skip
    assert answers[0]["reference"] == make_row(30)["messages"][1]["content"]
    assert (tmp_path / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_resumed_run_rewrites_the_metrics_after_its_checkpoint(tmp_path):
    for resume in (None, str(tmp_path / "checkpoint-2")):
        trainer = small_trainer(tmp_path, max_steps=4, save_steps=2)
        trainer.add_callback(MetricsFile())
        trainer.train(resume_from_checkpoint=resume)
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4]


def test_saved_folder_has_no_pickle_of_arguments(tmp_path):
    trainer = small_trainer(tmp_path, max_steps=1, save_steps=1)
    trainer.train()
    trainer.save_final()
    assert not list(tmp_path.rglob("training_args.bin"))
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "processor_config.json").is_file()


def test_processes_that_cannot_see_each_other_are_refused(tmp_path, monkeypatch):
    arguments = small_arguments(tmp_path)
    assert arguments.world_size == 1
    processor = small_processor()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(VividMedError, match="2 processes were started but each works alone"):
        VividMedTrainer(
            model=small_model(processor), args=arguments, processing_class=processor, data_collator=list
        )


def test_collator_of_a_trainer_takes_rows_as_they_are_stored():
    rows = make_rows([0, 3])
    stored = rows.with_format("arrow")
    batch = VividMedCollator(small_processor(), max_length=96)([stored[i].to_pylist()[0] for i in range(2)])
    assert batch["sample_ids"] == ["row-0", "row-3"]
