"""From the original files of six data sets, in miniature, to a table of scores, with the published settings of each."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from tests.fixtures.prepared_miniatures import MINIATURES
from tests.fixtures.training import small_model, small_processor
from vividmed.cli.main import main
from vividmed.inference.evaluation import predict_dataset
from vividmed.training.stages.command import CONFIGS
from vividmed.training.stages.command import main as train

SMALLEST = {
    "max_steps": 1,
    "warmup_steps": 0,
    "max_train_samples": 1,
    "max_eval_samples": 1,
    "per_device_train_batch_size": 1,
    "max_image_tokens": 4,
    "lora_r": 2,
    "dtype": "float32",
    "bf16": "false",
    "generation_samples": 0,
    "generation_max_new_tokens": 2,
    "closed_question_samples": 0,
    "dataloader_num_workers": 0,
    "activation_checkpointing": "false",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": "true",
}
SCORING = {
    "vqa": ("--samples", "5", "--metrics", "vqa"),
    "report": ("--samples", "5", "--metrics", "text,findings"),
}
PROTOCOL = "description: d\nreport_prompt: Report?\nmax_new_tokens: 2\nmax_image_tokens: 4\nunit: image\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    processor = small_processor()
    small_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("adapter", "config", "task", "figure"),
    [
        ("vqa-rad", "vqa_rad", "vqa", "accuracy"),
        ("slake", "slake", "vqa", "token_f1"),
        ("vqa-med-2019", "vqa_med", "vqa", "exact_match"),
        ("mimic-cxr", "mimic_cxr", "report", "finding_f1_micro"),
        ("openi", "openi", "report", "rougeL"),
        ("ct-rate", "ct_rate", "report", "bleu4"),
    ],
)
def test_original_files_become_a_table_of_scores(
    adapter, config, task, figure, model, tmp_path, tmp_path_factory, capsys
):
    import_module(f"tests.data.adapters.test_{adapter.replace('-', '_')}")
    prepared = MINIATURES[adapter].prepared(tmp_path_factory)
    data = prepared.origin.parent / "prepared" / adapter
    split = "test" if "test" in prepared.splits else sorted(prepared.splits)[-1]
    tuned, folder, protocol = tmp_path / "tuned", tmp_path / "predictions", tmp_path / "protocol.yaml"
    protocol.write_text(PROTOCOL)
    settings = {
        **SMALLEST,
        "config": CONFIGS / f"finetune/{config}.yaml",
        "model_name_or_path": model,
        "dataset_name": data,
        "eval_split": split,
        "output_dir": tuned,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    assert train(["--stage", "finetune", "--use_cpu", *words]) == 0
    number, _ = predict_dataset(
        str(tuned), folder, task=task, dataset=str(data), split=split, protocol=str(protocol), device="cpu"
    )
    assert number > 0
    assert main(["evaluate", "score", str(folder), *SCORING[task], "--card", str(tuned)]) == 0
    assert f"| {figure} |" in capsys.readouterr().out
    assert json.loads((folder / "scores.json").read_text())["failures"] == 0
    assert f"Evaluation of task {task}" in (tuned / "README.md").read_text()
