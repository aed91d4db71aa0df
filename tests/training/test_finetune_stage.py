"""Stage finetune: adapters continued or new, texts and grounded rows, metrics of generated answers, an early end."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftConfig
from transformers import get_cosine_schedule_with_warmup

from tests.fixtures.grounding import save_material
from tests.fixtures.training import make_rows, small_model, small_processor
from vividmed.errors import VividMedError
from vividmed.inference.loading import load_trained
from vividmed.metrics.names import FIGURES, LOWER_IS_BETTER
from vividmed.training.callbacks import EarlyStopping
from vividmed.training.schedule import keep_rate_between_updates
from vividmed.training.stages.command import CONFIGS, main, parse

FAST = {
    "max_steps": 1,
    "max_length": 160,
    "per_device_train_batch_size": 2,
    "learning_rate": 0.01,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "generation_samples": 1,
    "generation_max_new_tokens": 3,
    "closed_question_samples": 1,
    "lora_r": 2,
    "report_to": "none",
    "disable_tqdm": "true",
    "eval_metrics_samples": 2,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    processor = small_processor()
    small_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    for split, numbers in {"train": range(6), "validation": range(20, 23)}.items():
        make_rows(numbers).to_parquet(folder / "data" / f"{split}.parquet")
    return {"model": str(folder / "model"), "data": str(folder / "data")}


def finetune(output: Path, model: str, data: str, *options: str, **changes) -> int:
    settings = [word for name, value in {**FAST, **changes}.items() for word in (f"--{name}", str(value))]
    places = ["--model_name_or_path", model, "--dataset_name", data, "--output_dir", str(output)]
    return main(["--stage", "finetune", *places, "--use_cpu", *settings, *options])


def logged(folder: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


def test_text_rows_start_an_adapter_that_is_continued_or_merged_and_replaced(texts, tmp_path, capsys):
    first, continued, replaced = (tmp_path / name for name in ("first", "continued", "replaced"))
    chosen = {"eval_metrics": "bleu,token_f1,closed_accuracy", "metric_for_best_model": "token_f1"}
    assert finetune(first, texts["model"], texts["data"], **chosen) == 0
    figures = logged(first)
    assert {"eval_bleu4", "eval_token_f1", "eval_accuracy", "eval_loss"} <= figures.keys()
    card = (first / "README.md").read_text()
    assert "| evaluation token f1 |" in card
    assert "low-rank adapters of rank 2" in card
    assert PeftConfig.from_pretrained(first).r == 2

    few = {"eval_metrics": "token_f1"}
    assert finetune(continued, str(first), texts["data"], "--continue_adapter", lora_r=5, **few) == 0
    assert PeftConfig.from_pretrained(continued).r == 2
    assert finetune(replaced, str(first), texts["data"], "--continue_adapter", "false", lora_r=5, **few) == 0
    assert PeftConfig.from_pretrained(replaced).r == 5
    for folder in (continued, replaced):
        assert load_trained(folder)[0].config.model_type == "vividmed"
    capsys.readouterr()
    assert finetune(tmp_path / "whole", texts["model"], texts["data"], "--continue_adapter", **few) == 2
    assert "is a whole model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        ("localization", "segmentation,suppression", {"eval_mask_dice", "eval_dice", "eval_hit_rate"}),
        ("grounded_report", "rouge,radfact", {"eval_rougeL", "eval_logical_recall", "eval_dice"}),
    ],
)
def test_grounded_rows_are_recognised_and_their_answers_scored(kind, metrics, expected, tmp_path):
    material = save_material(tmp_path)
    options = {"eval_split": "test", "eval_metrics": metrics, "per_device_train_batch_size": 1}
    assert finetune(tmp_path / "out", material["model"], material[kind], **options) == 0
    assert expected <= logged(tmp_path / "out").keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_metrics": "blue"}, "--eval_metrics: 'blue' is unknown; use one of text, vqa"),
        ({"eval_metrics": "bertscore"}, "needs weights of its own"),
        ({"eval_metrics": "radfact"}, "radfact does not fit vision_language rows; use one of bleu"),
        ({"eval_metrics": ","}, "--eval_metrics: is empty"),
        (
            {"eval_metrics": "laterality,token_f1", "metric_for_best_model": "laterality_accuracy"},
            "not even right answers to the 3 evaluation rows that are answered have it; choose one of token_f1",
        ),
        ({"metric_for_best_model": "bleu4"}, "this stage's evaluation gives loss; choose one of them"),
        ({"focal_weight": 1}, "--focal_weight has no effect here: the rows have texts without masks"),
        ({"early_stopping_patience": 0}, "must be at least 1"),
        ({"eval_split": "held_out"}, "has no split 'held_out'; name one of train, validation"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line_before_training(options, message, texts, tmp_path, capsys):
    changes = {name: value for name, value in FAST.items() if name != "eval_metrics_samples"}
    settings = [word for name, value in {**changes, **options}.items() for word in (f"--{name}", str(value))]
    places = ["--model_name_or_path", texts["model"], "--dataset_name", texts["data"]]
    assert main(["--stage", "finetune", *places, "--use_cpu", "--output_dir", str(tmp_path), *settings]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("name", "steps", "saved", "batch", "shuffled"),
    [
        ("vqa_rad", 10_000, 2000, 8, True),
        ("slake", 10_000, 2000, 8, True),
        ("vqa_med", 10_000, 2000, 8, True),
        ("mimic_cxr", 10_000, 5000, 16, False),
        ("openi", 5000, 5000, 16, False),
        ("ct_rate", 10_000, 5000, 16, False),
    ],
)
def test_configurations_have_the_published_settings(name, steps, saved, batch, shuffled):
    config = str(CONFIGS / f"finetune/{name}.yaml")
    _, data, model, _, args = parse(["--stage", "finetune", "--config", config, "--use_cpu"])
    assert (args.max_steps, args.save_steps, args.per_device_train_batch_size) == (steps, saved, batch)
    assert (args.learning_rate, args.weight_decay, args.warmup_steps) == (5e-5, 0.01, 500)
    assert args.lr_update_steps == 250
    assert (args.max_grad_norm, args.lr_scheduler_type.value, args.eval_strategy.value) == (1, "cosine", "no")
    assert (model.lora_r, model.lora_alpha, model.lora_dropout, model.use_rslora) == (64, 8, 0.05, True)
    assert (data.shuffle_turns, data.first_image) == (shuffled, not shuffled)


def test_the_learning_rate_is_that_of_the_last_update():
    rates: list[list[float]] = []
    for steps in (1, 25):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = keep_rate_between_updates(get_cosine_schedule_with_warmup(optimizer, 50, 200), steps)
        rates.append([])
        for _ in range(200):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates[1] == [rates[0][step // 25 * 25] for step in range(200)]
    assert rates[1][50] == 1
    with pytest.raises(VividMedError, match="does not depend on the step only"):
        keep_rate_between_updates(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), 25)


def test_data_of_ones_own_gets_epochs_a_share_of_warm_up_and_an_early_end():
    _, data, model, _, args = parse(["--stage", "finetune", "--dataset_name", "X", "--use_cpu"])
    assert (data.eval_split, model.use_peft, args.max_steps) == ("validation", True, -1)
    assert 0 < args.warmup_steps < 1
    assert args.load_best_model_at_end
    assert args.early_stopping_patience == 3


@pytest.mark.parametrize(
    ("values", "greater", "threshold", "stops"),
    [
        ([3, 2, 1], False, 0, False),
        ([1, 2, 3], False, 0, True),
        ([1, 2, 0.5], False, 0, False),
        ([0.1, 0.2, 0.3], True, 0, False),
        ([0.1, 0.2, 0.3], True, 0.5, True),
        ([1, 1], False, 0, False),
        ([1, None, None], False, 0, True),
        ([None, None], False, 0, True),
        ([None, 1, None], True, 0, False),
    ],
)
def test_training_ends_after_evaluations_without_improvement(values, greater, threshold, stops):
    log = [{"step": 0, "eval_x": -99 if not greater else 99}]
    log += [
        {"step": step, "eval_loss": 1} | ({} if value is None else {"eval_x": value})
        for step, value in enumerate(values, start=1)
    ]
    args = SimpleNamespace(metric_for_best_model="x", greater_is_better=greater)
    control = SimpleNamespace(should_training_stop=False)
    EarlyStopping(2, threshold=threshold).on_evaluate(args, SimpleNamespace(log_history=log), control)
    assert control.should_training_stop is stops


@pytest.mark.parametrize(
    "metric", ["token_f1", "eval_bleu4", "mask_dice", "mask_hd95", "absent_voxels", "dice", "loss"]
)
def test_the_direction_of_a_metric_is_known(metric):
    args = parse(["--stage", "finetune", "--use_cpu", "--metric_for_best_model", metric])[4]
    assert args.greater_is_better is (metric in ("token_f1", "eval_bleu4", "mask_dice"))
    assert {name for figures in FIGURES.values() for name in figures} >= LOWER_IS_BETTER
