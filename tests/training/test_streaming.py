"""Stages train on the stream of a mixture, and resume it where they stopped."""

import json
import os
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from datasets import config
from safetensors.torch import load_file

from tests.fixtures.grounding import save_material
from tests.fixtures.training import make_rows, small_arguments, small_model, small_processor
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.terms import read_provenance, widest_visibility
from vividmed.training.runs.provenance import rows_terms
from vividmed.training.stages.command import main
from vividmed.training.stages.stage import StageRows
from vividmed.training.streaming import stream_loader

NAMES = {"first": range(7), "second": range(7, 12)}


@pytest.fixture(scope="module", autouse=True)
def no_rest():
    with pytest.MonkeyPatch.context() as patch:
        # A stream rests for seconds after each pass, which here is a few rows.
        patch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("material")
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    processor = small_processor()
    small_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    for name, numbers in NAMES.items():
        (folder / name).mkdir()
        make_rows(numbers).to_parquet(folder / name / "train.parquet")
    (folder / "held_out").mkdir()
    for split in ("train", "test"):
        make_rows(range(20, 23)).to_parquet(folder / "held_out" / f"{split}.parquet")
    entries = [{"name": name, "kind": "vision_language"} for name in NAMES]
    (folder / "mixture.yaml").write_text(yaml.safe_dump({"datasets": entries, "root": str(folder)}))
    return {
        "model_name_or_path": str(folder / "model"),
        "mixture": str(folder / "mixture.yaml"),
        "dataset_name": str(folder / "held_out"),
    }


def run(stage: str, output: Path, settings: dict, *options: str) -> int:
    """Train for four steps by default, with a checkpoint at every second one."""
    output.parent.mkdir(exist_ok=True)
    common = {
        "output_dir": str(output),
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    if not stage.startswith("align"):
        common |= {"max_length": 400, "generation_samples": 1, "generation_max_new_tokens": 2}
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(common | settings))
    return main(["--stage", stage, "--config", str(file), "--streaming", *options])


def training_log(folder: Path) -> dict[int, tuple[float, float]]:
    """Loss and epoch of each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: (line["loss"], line["epoch"]) for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def whole(material, tmp_path_factory) -> Path:
    """Output folder of an unbroken run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert run("vlm", folder, material) == 0
    return folder


def test_resumed_run_sees_the_rows_of_an_unbroken_one(whole, material, tmp_path):
    checkpoint = ["--resume_from_checkpoint", str(whole / "checkpoint-2")]
    assert run("vlm", tmp_path / "out", material, *checkpoint, "--dataloader_num_workers", "2") == 0
    unbroken = training_log(whole)
    assert [epoch for _, epoch in unbroken.values()] == [0.25, 0.5, 0.75, 1]
    assert training_log(tmp_path / "out") == {step: unbroken[step] for step in (3, 4)}
    weights = load_file(whole / "model.safetensors")
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)


def test_stream_of_another_mixture_is_not_resumed(whole, material, tmp_path, capsys):
    mixture = yaml.safe_load(Path(material["mixture"]).read_text()) | {"seed": 7}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(mixture))
    checkpoint = ["--resume_from_checkpoint", str(whole / "checkpoint-2")]
    changed = material | {"mixture": str(tmp_path / "other.yaml")}
    assert run("vlm", tmp_path / "out", changed, *checkpoint) == 2
    assert "the training data differs" in capsys.readouterr().err


def test_card_and_terms_say_only_what_is_known_of_streamed_rows(whole):
    card = (whole / "README.md").read_text()
    assert "patients and images of both splits were not compared" in card
    assert all(f"| {name} | unknown | {len(numbers)} |" in card for name, numbers in NAMES.items())
    terms = read_provenance(whole)
    assert {"first", "second"} <= {each.name for each in terms}
    assert widest_visibility(terms, "model") == "private"


def test_a_known_name_does_not_give_streamed_rows_its_terms(material, tmp_path):
    entry = {"name": "ct-org", "kind": "vision_language", "path": material["dataset_name"]}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    terms = rows_terms(MixtureStream(tmp_path / "mixture.yaml", batch_size=1))
    assert widest_visibility(terms, "model") == "private"


def test_processes_share_the_batches_of_one_stream(material, tmp_path):
    def batches(count: int, **processes: int) -> list[list[str]]:
        stream = MixtureStream(material["mixture"], batch_size=2, **processes)
        loader = stream_loader(stream, small_arguments(tmp_path), batch_size=2, collate=identity)
        return [[row["id"] for row in rows] for rows in islice(loader, count)]

    shared = [batches(4, process_index=rank, num_processes=2) for rank in range(2)]
    assert [batch for pair in zip(*shared, strict=True) for batch in pair] == batches(8)


def identity(rows: list) -> list:
    return rows


def test_evaluation_rows_stand_in_for_skipped_rows_of_a_stream(material):
    stream = MixtureStream(material["mixture"], batch_size=1)
    assert not len(StageRows(stream, None).spare)
    assert StageRows(stream, make_rows([20, 21])).spare[1]["id"] == "row-21"


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("align-sam", "localization"), ("vg", "localization"), ("grg", "grounded_report")],
)
def test_stages_that_ground_train_on_a_stream(stage, kind, tmp_path):
    material = save_material(tmp_path / "material")
    entry = {"name": "only", "kind": kind, "path": material[kind]}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    settings = {"mixture": str(tmp_path / "mixture.yaml"), "max_steps": 1}
    if not stage.startswith("align"):
        settings["model_name_or_path"] = material["model"]
    assert run(stage, tmp_path / "out", settings) == 0
    assert list(training_log(tmp_path / "out")) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_steps", "5"], "--streaming: no effect without --mixture; add --mixture, or leave it out"),
        (["--mixture", "m.yaml", "--num_train_epochs", "1"], "--streaming: a stream has no end"),
    ],
)
def test_stream_without_mixture_or_length_is_refused_in_one_line(options, message, tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = ["--stage", "vlm", "--use_cpu", "--output_dir", str(folder), "--streaming", *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists()
