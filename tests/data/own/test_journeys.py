"""Journeys from original files to scored predictions, by commands only, at tiny settings."""

import json
from pathlib import Path

import pytest

from tests.data.own.test_layouts import VERSION_2, write_nnunet
from tests.fixtures.grounding import grounding_model
from tests.fixtures.miniatures import picture, write_picture, write_table
from tests.fixtures.training import small_model, small_processor
from vividmed.cli.main import main
from vividmed.data.taxonomy import Taxonomy
from vividmed.inference.loading import load_trained

pytestmark = pytest.mark.slow

STEPS = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "per_device_eval_batch_size": 2,
    "max_length": 400,
    "generation_samples": 1,
    "generation_max_new_tokens": 3,
    "eval_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with segmenters, and its processor."""
    folder = tmp_path_factory.mktemp("base")
    processor = small_processor()
    grounding_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("vividmed.data.own.direct.HF_HOME", str(tmp_path / "home"))


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def train(stage: str, data: Path, model: Path, output: Path, *options: object) -> None:
    settings = [part for name, value in STEPS.items() for part in (f"--{name}", value)]
    run(
        "train",
        "--stage",
        stage,
        "--dataset_name",
        data,
        "--model_name_or_path",
        model,
        "--output_dir",
        output,
        *settings,
        *options,
    )


def score(model: Path, data: Path, output: Path) -> str:
    run("evaluate", "predict", model, "--dataset", data, "--task", "ground", "--output", output)
    run("evaluate", "score", output)
    return (
        (output / "predictions.jsonl").read_text()
        if (output / "predictions.jsonl").exists()
        else "".join(path.read_text() for path in output.glob("*.jsonl"))
    )


def test_an_nnunet_folder_with_reports_trains_both_grounding_stages_and_its_masks_are_scored(
    base: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setenv("VIVIDMED_TAXONOMY", "")
    own = tmp_path / "own.yaml"
    own.write_text("targets:\n  hepatic nodule: {category: anomaly, synonyms: [lesion two]}\n")
    folder = write_nnunet(tmp_path / "Dataset001_Liver", VERSION_2)
    reports = [
        {"case": f"c{n}", "report": "The liver has a hepatic nodule. Normal spleen."} for n in range(1, 5)
    ]
    write_table(folder / "reports.csv", reports)
    data = tmp_path / "data"
    renames = ["--map", "whole liver=liver", "--map", "liver_tumour=hepatic nodule", "--taxonomy", own]
    run("prepare", "nnunet", folder, *renames, "--output", data)
    train("vg", data, base, tmp_path / "vg")
    train("grg", data, tmp_path / "vg", tmp_path / "grg")
    assert json.loads((tmp_path / "grg/provenance.json").read_text())["datasets"]
    predicted = score(tmp_path / "grg", data, tmp_path / "predictions")
    assert "liver" in predicted
    printed = capsys.readouterr().out
    assert "| liver | all |" in printed
    # The targets of one's own travel with the model.
    own.unlink()
    moved = (tmp_path / "grg").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("VIVIDMED_TAXONOMY", "")
    assert "hepatic nodule" not in Taxonomy.load()
    load_trained(moved)
    assert Taxonomy.load()["hepatic nodule"].category == "anomaly"


def test_coco_boxes_train_visual_grounding_and_are_scored(base: Path, tmp_path: Path, capsys):
    images = [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 40} for n in range(4)]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": [8, 4 * n, 16, 12]} for n in range(4)]
    for number in range(4):
        write_picture(tmp_path / f"images/{number}.png", picture(seed=number))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "lung nodule"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    data = tmp_path / "data"
    run(
        "prepare",
        "coco",
        tmp_path / "boxes.json",
        "--images",
        tmp_path / "images",
        "--output",
        data,
    )
    train("vg", data, base, tmp_path / "vg")
    assert "lung nodule" in score(tmp_path / "vg", data, tmp_path / "predictions")
    assert "hit_rate" in capsys.readouterr().out


def test_a_table_is_trained_on_without_preparing_it(tmp_path: Path):
    processor, model = small_processor(), tmp_path / "model"
    small_model(processor).save_pretrained(model)
    processor.save_pretrained(model)
    for number in range(4):
        write_picture(tmp_path / f"{number}.png", picture((32, 32), seed=number))
    rows = [{"image": f"{n}.png", "question": "Is it normal?", "answer": "yes"} for n in range(4)]
    table = write_table(tmp_path / "questions.csv", rows)
    train("vlm", table, model, tmp_path / "out", "--closed_question_samples", 1)
    provenance = json.loads((tmp_path / "out/provenance.json").read_text())
    assert "internal" in json.dumps(provenance)
