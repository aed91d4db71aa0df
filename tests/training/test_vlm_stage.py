"""The whole stage in one process, on rows and a model from files."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from filelock import FileLock
from safetensors.torch import load_file
from transformers.utils import logging

from tests.fixtures.paths import REPOSITORY
from tests.fixtures.training import make_row, make_rows, small_model, small_processor, small_trainer
from vividmed.data.schema import schema
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.split_overlap import SplitOverlap, find_overlap
from vividmed.training.stages.command import main, parse
from vividmed.training.stages.stage import StageRows
from vividmed.training.stages.vlm import VlmStage, closed_rows, varied_rows
from vividmed.training.trainer import VividMedTrainer


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("material")
    processor = small_processor()
    small_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    make_rows(range(12)).to_parquet(folder / "data" / "train.parquet")
    make_rows(range(20, 25)).to_parquet(folder / "data" / "test.parquet")
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    return {"model_name_or_path": str(folder / "model"), "dataset_name": str(folder / "data")}


@pytest.fixture
def run(material, tmp_path):
    def start(*options: str) -> int:
        settings = {
            **material,
            "output_dir": str(tmp_path / "out"),
            "max_steps": 4,
            "max_length": 96,
            "per_device_train_batch_size": 2,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "generation_samples": 2,
            "generation_max_new_tokens": 3,
            "report_to": "tensorboard",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        return main(["--stage", "vlm", "--config", str(tmp_path / "config.yaml"), *options])

    return start


def rows_of_three_turns() -> Dataset:
    row = make_row(0)
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")]
    row |= {"images": row["images"] * 2, "messages": turns, "kind": "vqa"}
    return Dataset.from_list([row], features=schema("vision_language"))


def build_trainer(material, folder: Path, options: Sequence[str], rows: Dataset) -> VividMedTrainer:
    settings = {**material, "output_dir": str(folder), "eval_strategy": "no", "use_cpu": True}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    _, data_args, model_args, args = parse(["--stage", "vlm", *words, *options])
    return VlmStage(data_args, model_args, args).build(StageRows(rows, None))


def steps(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    ("options", "images", "orders"),
    [
        ((), 2, 1),
        (("--first_image", "true"), 1, 1),
        (("--shuffle_turns", "true"), 2, 6),
    ],
)
def test_training_shows_the_images_and_the_questions_that_were_asked_for(
    options, images, orders, material, tmp_path
):
    rows = rows_of_three_turns()
    trainer = build_trainer(material, tmp_path, options, rows)
    seen = set()
    for epoch in range(40):
        example = trainer.data_collator.transform({**rows[0], "epoch": epoch, "index": 0})
        assert len(example["images"]) == images
        contents = [turn["content"] for turn in example["messages"]]
        assert [text.replace("user", "assistant") for text in contents[::2]] == contents[1::2]
        seen.add(tuple(contents))
    assert len(seen) == orders


@pytest.mark.parametrize(("options", "turns"), [((), None), (("--independent_turns",), [1, 2, 3])])
def test_questions_are_answered_without_the_others_if_asked_for(options, turns, material, tmp_path):
    rows = rows_of_three_turns()
    trainer = build_trainer(material, tmp_path, options, rows)
    batch = trainer.data_collator([rows[0]])
    assert (batch["turn_ids"].unique().tolist()[1:] if "turn_ids" in batch else None) == turns
    assert trainer.compute_loss(trainer.model, batch).isfinite()


def test_run_leaves_a_usable_model_with_its_card_config_and_logs(run, tmp_path, capsys):
    assert run() == 0
    folder = tmp_path / "out"
    printed = capsys.readouterr().out
    assert "evaluation loss per token:" in printed
    assert "held-out modality questions right: " in printed
    assert printed.count("held-out image row-") == 2
    assert f"checkpoint: {folder}" in printed
    assert "trainable 100.00 %" in printed

    processor = VividMedProcessor.from_pretrained(folder)
    model = VividMedForCausalLM.from_pretrained(folder)
    batch = processor(images=make_row(1)["images"], text="What is the modality of this image?")
    assert model.generate(**batch, max_new_tokens=2).shape[1] > batch["input_ids"].shape[1]

    card = (folder / "README.md").read_text()
    for fact in (
        "Not a medical device",
        "| made up for a test | none | 12 |",
        "| made up for a test | none | 5 |",
    ):
        assert fact in card
    assert "4 optimizer steps of 2 rows" in card
    assert "before" in card
    assert str(tmp_path) not in card.split("## Use")[1]
    assert parse(["--stage", "vlm", "--config", str(folder / "config.yaml")])[3].max_steps == 4
    assert steps(folder) == [1, 2, 3, 4]
    assert (folder / "loss_curve.png").is_file()
    assert list((folder / "runs").rglob("events.*"))
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("training_args.bin"))


def test_earlier_run_is_kept_resumed_or_overwritten_as_asked(run, tmp_path, capsys):
    assert run("--max_steps", "2") == 0
    assert run("--max_steps", "4") == 2
    assert "holds checkpoint-2 of an earlier run" in capsys.readouterr().err
    baseline = (tmp_path / "out" / "baseline.json").read_text()
    assert run("--max_steps", "4", "--resume_from_checkpoint") == 2
    assert "cannot be resumed exactly: max_steps is 4 instead of 2" in capsys.readouterr().err
    assert run("--max_steps", "4", "--resume_from_checkpoint", "--allow_inexact_resume") == 0
    assert steps(tmp_path / "out") == [1, 2, 3, 4]
    assert (tmp_path / "out" / "baseline.json").read_text() == baseline
    assert run("--max_steps", "2", "--overwrite_output_dir") == 0
    assert steps(tmp_path / "out") == [1, 2]
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]


def test_second_run_in_the_same_folder_is_refused(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert run() == 2
    assert "another run is at work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eval_split", "validation"], "has no split 'validation'; name one of train, test"),
        (["--dataset_name", "/no/such/data"], "--dataset_name /no/such/data cannot be loaded"),
        (["--model_name_or_path", "/no/such/model"], "--model_name_or_path /no/such/model"),
        (["--max_length", "20"], "row row-"),
    ],
)
def test_wrong_material_is_one_line_and_status_two(run, capsys, options, message):
    assert run(*options) == 2
    error = capsys.readouterr().err
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    assert message in line


def test_checkpoint_of_another_architecture_is_refused(run, tmp_path, capsys):
    other = tmp_path / "other"
    small_processor().save_pretrained(other)
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert run("--model_name_or_path", str(other)) == 2
    assert "is a model of type 'llama', not 'vividmed'" in capsys.readouterr().err


def test_model_without_a_tokenizer_is_refused(run, tmp_path, capsys):
    small_model(small_processor()).save_pretrained(tmp_path / "bare")
    assert run("--model_name_or_path", str(tmp_path / "bare")) == 2
    assert "has no processor" in capsys.readouterr().err


def test_program_prints_one_line_for_wrong_input_and_no_traceback(tmp_path):
    script = [
        sys.executable,
        str(REPOSITORY / "stages" / "train.py"),
        "--stage",
        "vlm",
        "--learning_rat",
        "1",
    ]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: command line: unknown argument --learning_rat")
    assert "Traceback" not in done.stderr


def test_sample_rows_differ_in_patient_modality_and_kind():
    rows = make_rows(range(10))
    chosen = varied_rows(rows, 3)
    assert len(chosen) == 3
    assert {row["modality"] for row in chosen} == {"CT", "MRI"}
    assert len({row["patient"] for row in chosen}) == 3


def test_closed_rows_are_those_with_one_right_answer():
    rows = make_rows(range(3)).from_list(
        [make_row(0), make_row(1) | {"kind": "report"}, make_row(2)], features=make_rows([0]).features
    )
    assert [row["id"] for row in closed_rows(rows, 10)] == ["row-0", "row-2"]
    assert len(closed_rows(rows, 1)) == 1


def test_mixture_is_trained_on_with_its_own_conversations(run, material, tmp_path):
    entry = {"name": "data", "kind": "vision_language", "conversation": {"modality": 1.0}}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    options = ("--mixture", str(tmp_path / "mixture.yaml"), "--max_length", "160")
    assert run(*options, "--mixture_root", str(Path(material["dataset_name"]).parent)) == 0
    assert steps(tmp_path / "out") == [1, 2, 3, 4]


def test_mixture_without_a_root_is_refused(run, tmp_path, capsys):
    (tmp_path / "mixture.yaml").write_text(
        yaml.safe_dump({"datasets": [{"name": "data", "kind": "vision_language"}]})
    )
    assert run("--mixture", str(tmp_path / "mixture.yaml")) == 2
    assert "the mixture has no root" in capsys.readouterr().err


def evaluation_lines(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval_loss" in line]


def loss_of(folder: Path) -> float:
    """Evaluation loss of the weights in a folder, measured apart from the run."""
    model = VividMedForCausalLM.from_pretrained(folder)
    trainer = small_trainer(folder.parent / "apart", model=model, eval_rows=make_rows(range(20, 25)))
    return trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize(
    ("options", "step"),
    [
        # The highest loss counts as the best, so that it is that of the earlier evaluation.
        (["--load_best_model_at_end", "--metric_for_best_model", "loss", "--greater_is_better", "true"], 2),
        (["--max_steps", "1", "--logging_steps", "10", "--save_strategy", "no"], 1),
    ],
    ids=["best model", "fewer steps than a log line"],
)
def test_every_figure_is_that_of_the_weights_in_the_folder(run, tmp_path, capsys, options, step):
    assert run(*options) == 0
    folder = tmp_path / "out"
    figure = f"{loss_of(folder):.3f} after"
    assert f"evaluation loss per token: {figure}".split(": ")[1] in capsys.readouterr().out
    assert figure in (folder / "README.md").read_text()
    last = evaluation_lines(folder)[-1]
    assert (last["step"], f"{last['eval_loss']:.3f} after") == (step, figure)


def test_run_resumed_elsewhere_with_other_samples_ends_with_its_card(run, tmp_path, capsys):
    assert run("--closed_question_samples", "2") == 0
    other = tmp_path / "other"
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    options = ("--generation_samples", "1", "--closed_question_samples", "4", "--max_eval_samples", "4")
    assert run("--output_dir", str(other), "--resume_from_checkpoint", checkpoint, *options) == 0
    printed = capsys.readouterr().out
    assert printed.count("held-out image row-") == 3
    assert "after" in (other / "README.md").read_text()
    assert "before" not in (other / "README.md").read_text().split("## Evaluation\n")[1].split("##")[0]


def test_card_states_whether_patients_and_images_were_held_out(run, tmp_path, caplog):
    logging.get_logger("vividmed").parent.propagate = True
    assert run("--max_steps", "1", "--eval_split", "train", "--save_strategy", "no") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Not held out:** 5 of 5 patients and 12 of 12 images" in card
    assert "5 of 5 patients" in caplog.text
    assert "patient-" not in caplog.text  # ids of patients stay out of logs


def test_terminal_that_shows_ascii_only_gets_the_report(run, material, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert run("--max_steps", "1", "--save_strategy", "no", "--generation_max_new_tokens", "20") == 0
    assert b"checkpoint: " in screen.buffer.getvalue()


def test_overlap_is_told_by_patient_and_by_image():
    assert find_overlap(make_rows([0, 5]), make_rows([1, 6])).shared_patients == 0
    assert find_overlap(make_rows([0, 5]), make_rows([10])) == SplitOverlap(1, 1, 1, 0)
    assert find_overlap(make_rows([0, 3]), make_rows([3, 4])) == SplitOverlap(2, 2, 1, 1)
    renamed = make_rows([3]).map(lambda row: {**row, "patient": "somebody"})
    assert find_overlap(make_rows([0, 3]), renamed) == SplitOverlap(1, 1, 0, 1)


def test_own_data_without_a_file_trains_in_epochs_with_a_warm_up_in_proportion(material, tmp_path):
    folder = tmp_path / "out"
    options = {
        **material,
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_length": 96,
        "generation_max_new_tokens": 3,
        "report_to": "none",
        "disable_tqdm": True,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["--stage", "vlm", "--use_cpu", *words]) == 0
    card = (folder / "README.md").read_text()
    assert "3 optimizer steps of 4 rows" in card
    assert "cosine, 1 warm-up steps" in card
    assert [line["step"] for line in evaluation_lines(folder)] == [0, 3]


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        (["--dtype", "bfloat16"], "float32"),
        (["--dtype", "bfloat16", "--use_peft", "--lora_r", "2"], "float32"),
        (["--dtype", "bfloat16", "--trainable_dtype", "as_loaded"], "bfloat16"),
    ],
    ids=["all weights", "adapters", "as published"],
)
def test_trained_weights_are_float32_unless_told_otherwise(run, tmp_path, capsys, options, precision):
    assert run("--max_steps", "1", "--save_strategy", "no", "--eval_strategy", "no", *options) == 0
    assert f" % in {precision}; gradients" in capsys.readouterr().out
    (file,) = (path for path in (tmp_path / "out").glob("*model.safetensors"))
    assert {str(tensor.dtype) for tensor in load_file(file).values()} == {f"torch.{precision}"}


def test_lower_precision_of_frozen_weights_needs_mixed_precision(run, capsys):
    assert run("--dtype", "bfloat16", "--use_peft", "--bf16", "false") == 2
    assert "--bf16 false: frozen weights in bfloat16" in capsys.readouterr().err
