"""Journey A: a table of questions about radiographs becomes a fine-tuned model and a number, by four commands."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.training import small_model, small_processor
from vividmed.cli.main import main
from vividmed.data.loading import load_prepared

SPLITS = {"train": 4, "validation": 2, "test": 3}
QUICK = (
    *("--use_cpu", "--num_train_epochs", "1", "--gradient_accumulation_steps", "1", "--lora_r", "2"),
    *("--generation_samples", "1", "--generation_max_new_tokens", "3", "--eval_metrics", "token_f1"),
    *("--metric_for_best_model", "token_f1", "--disable_tqdm", "true", "--report_to", "none"),
)

SCORING = ("--metrics", "vqa", "--samples", "5")


@pytest.fixture
def material(tmp_path, monkeypatch):
    """A clinic's table with its images, and a trained model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    processor = small_processor()
    for part in (small_model(processor), processor):
        part.save_pretrained(tmp_path / "outputs" / "vlm")
    generator = np.random.default_rng(0)
    with (tmp_path / "questions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "question", "answer", "patient", "split"])
        for split, number in SPLITS.items():
            for place in range(number):
                name = f"{split}-{place}.png"
                Image.fromarray(generator.integers(0, 255, (40, 48), dtype=np.uint8)).save(f"images/{name}")
                writer.writerow([name, "Is there an effusion?", "yes" if place % 2 else "no", name, split])
    return tmp_path


@pytest.mark.slow
def test_four_commands_lead_from_a_table_to_a_number(material, capsys):
    prepared = ["--images", "images", "--modality", "X-ray", "--output", "data/questions"]
    assert main(["prepare", "table", "questions.csv", *prepared]) == 0
    load_prepared("data/questions", what="the folder of another day")
    shutil.rmtree("data/questions")
    table = (material / "questions.csv").read_text()
    (material / "questions.csv").write_text(table.replace("an effusion", "a mass"))
    assert main(["prepare", "table", "questions.csv", *prepared]) == 0
    tuning = ["--model_name_or_path", "outputs/vlm", "--dataset_name", "data/questions"]
    assert main(["train", "--stage", "finetune", *tuning, *QUICK]) == 0
    asked = ["--task", "vqa", "--dataset", "data/questions", "--output", "predictions", "--device", "cpu"]
    assert main(["evaluate", "predict", "outputs/finetune", *asked]) == 0
    assert main(["evaluate", "score", "predictions", *SCORING, "--plots", "--card", "outputs/finetune"]) == 0
    assert "| closed_accuracy |" in capsys.readouterr().out
    scores = json.loads((material / "predictions" / "scores.json").read_text())
    assert (scores["items"], scores["patients"], scores["failures"]) == (3, 3, 0)
    asked = [json.loads(line) for line in (material / "predictions" / "predictions.jsonl").open()]
    assert {line["question"] for line in asked} == {"Is there a mass?"}
    assert "data:image/jpeg" in (material / "predictions" / "gallery.html").read_text()
    assert (
        str(material) not in (material / "outputs" / "finetune" / "README.md").read_text().split("## Use")[0]
    )
