"""The stages that ground, in one process, on phantom rows and small models from files."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.fixtures.grounding import grounding_model, save_material
from tests.fixtures.training import MODEL_INPUTS, small_processor
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.errors import VividMedError
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.peft import load_adapter
from vividmed.training.stages.command import main, parse

LABELS = ("labels", "label_weights", "grounding_values", "grounding_labels")


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("material")
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    return save_material(folder)


@pytest.fixture(scope="module")
def start(material, tmp_path_factory):
    """Run a stage for two steps; gives its output folder."""

    def run(stage: str, *options: str, kind: str = "localization", expect: int = 0, **changes) -> Path:
        output = tmp_path_factory.mktemp(stage) / "out"
        settings = {
            "dataset_name": material[kind],
            "output_dir": str(output),
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 2,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "eval_on_start": True,
            "save_steps": 2,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
        }
        if not stage.startswith("align"):
            settings |= {"max_length": 400, "generation_samples": 1, "generation_max_new_tokens": 3}
        config = output.parent / "config.yaml"
        config.write_text(yaml.safe_dump(settings | changes))
        assert main(["--stage", stage, "--config", str(config), *options]) == expect
        return output

    return run


@pytest.fixture(scope="module")
def vg(start, material) -> Path:
    return start("vg", model_name_or_path=material["model"])


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_log_has_parts_of_the_loss_and_dice_of_each_target(vg):
    lines = [line for line in log(vg) if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["loss"] == pytest.approx(line["lm_loss"] + line["grounding_loss"], abs=1e-4)
        assert {"dice", "focal", "box_l1", "box_giou", "score"} <= set(line)
        assert 0 <= line["dice/left lung"] <= 1
    evaluations = [line for line in log(vg) if "eval_loss" in line]
    assert [line["step"] for line in evaluations] == [0, 2]
    assert all("eval_dice/right lung" in line and "eval_lm_loss" in line for line in evaluations)


def test_stage_leaves_model_card_overlays_and_answers(vg):
    model = VividMedForCausalLM.from_pretrained(vg)
    assert model.segmenter is not None
    assert VividMedProcessor.from_pretrained(vg)
    card = (vg / "README.md").read_text()
    assert "generated phantom" in card
    assert "evaluation grounding loss" in card
    assert len(list((vg / "overlays").glob("step-*/*.png"))) == 2
    record = json.loads((vg / "samples.jsonl").read_text().splitlines()[-1])
    assert (vg / record["overlay"]).is_file()
    assert (vg / "config.yaml").is_file()


def test_overwritten_run_leaves_no_overlays_of_the_earlier_one(vg, material, start, tmp_path):
    folder = tmp_path / "run"
    (folder / "overlays" / "step-7").mkdir(parents=True)
    start("vg", model_name_or_path=material["model"], output_dir=str(folder), max_steps=1)
    assert sorted(path.name for path in (folder / "overlays").iterdir()) == ["step-0", "step-1"]


def test_instance_masks_stay_as_they_were(vg, material):
    before = VividMedForCausalLM.from_pretrained(material["model"])
    after = VividMedForCausalLM.from_pretrained(vg)
    assert all(
        map(
            torch.equal,
            before.instance_segmenter.mask_parameters(),
            after.instance_segmenter.mask_parameters(),
        )
    )
    assert not torch.equal(
        before.instance_segmenter.box_head.layers[0].weight,
        after.instance_segmenter.box_head.layers[0].weight,
    )


def test_frozen_segmenters_stay_as_they_were(start, material):
    output = start(
        "vg",
        model_name_or_path=material["model"],
        freeze_segmenter=True,
        freeze_instance_segmenter=True,
        eval_on_start=False,
        max_steps=1,
    )
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (material["model"], output))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model", "lm_head", "grounding_projection"}


def test_reports_start_from_the_model_that_localization_has_left(start, vg):
    output = start("grg", kind="grounded_report", model_name_or_path=str(vg), equalize=0.5)
    assert all(line["lm_loss"] > 0 for line in log(output) if "loss" in line)
    assert VividMedForCausalLM.from_pretrained(output).instance_segmenter is not None


@pytest.mark.parametrize(("stage", "kind"), [("align-sam", Segmenter), ("align-isam", InstanceSegmenter)])
def test_alignment_leaves_a_segmenter_that_localization_takes(start, material, stage, kind):
    output = start(stage, max_image_tokens=8, max_slice_tokens=2, low_image_tokens=0)
    segmenter = kind.from_pretrained(output)
    lines = [line for line in log(output) if "loss" in line]
    assert all(line["loss"] == pytest.approx(line["grounding_loss"], abs=1e-4) for line in lines)
    assert "prompts.weight" in load_file(output / "checkpoint-2" / "model.safetensors")
    assert "prompts.weight" not in load_file(output / "model.safetensors")
    assert "segmenter alone" in (output / "README.md").read_text()
    assert segmenter.config.hidden_size == 96


def test_aligned_segmenters_of_another_width_are_refused_in_one_line(start, material, capsys):
    output = start(
        "align-sam",
        max_image_tokens=8,
        max_slice_tokens=2,
        low_image_tokens=0,
        max_steps=1,
        eval_strategy="no",
        eval_on_start=False,
    )
    start("vg", model_name_or_path=material["model"], segmenter=str(output), expect=2)
    assert "96 and 32 wide" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("quantised", [False, True], ids=["16 bits", "4 bits"])
def test_adapter_contains_whole_segmenters_and_reloads_to_the_same_masks(start, material, quantised):
    if quantised:
        pytest.importorskip("bitsandbytes")
    output = start(
        "vg",
        model_name_or_path=material["model"],
        use_peft=True,
        lora_r=2,
        load_in_4bit=quantised,
        dtype="bfloat16",
        eval_strategy="no",
        eval_on_start=False,
    )
    saved = load_file(output / "adapter_model.safetensors")
    assert any("segmenter.prompt_encoder" in name and "frequencies" in name for name in saved)
    assert {value.dtype for name, value in saved.items() if "segmenter." in name} == {torch.float32}
    base = VividMedForCausalLM.from_pretrained(material["model"])
    model = load_adapter(base, output).eval()
    trained = {name: value for name, value in saved.items() if ".segmenter." in name}
    own = model.get_base_model().segmenter.state_dict()
    assert trained
    for name, value in trained.items():
        key = name.split("segmenter.", 1)[1]
        match = next(tensor for other, tensor in own.items() if other.endswith(f"default.{key}"))
        assert torch.equal(match, value)
    first = VividMedForCausalLM.from_pretrained(material["model"]).segmenter.state_dict()
    assert any(
        not torch.equal(first[name.split("segmenter.", 1)[1]], value) for name, value in trained.items()
    )


def test_mixture_is_trained_on_with_its_own_conversations(start, material, tmp_path):
    (tmp_path / "mixture.yaml").write_text(
        yaml.safe_dump(
            {
                "datasets": [
                    {"name": kind, "kind": kind, "path": material[kind]}
                    for kind in ("localization", "grounded_report")
                ]
            }
        )
    )
    output = start(
        "vg", model_name_or_path=material["model"], mixture=str(tmp_path / "mixture.yaml"), max_steps=1
    )
    assert [line["step"] for line in log(output) if "eval_loss" in line] == [0, 1]


def batch(material, *, numbers=(0, 1, 2), **options):
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=f"{material['grounded_report']}/train.parquet", split="train")
    stored = rows.with_format("arrow")
    collator = GroundedCollator(
        small_processor(), transform=GroundingTransform(seed=0), **{"max_length": 400, **options}
    )
    return collator([{**stored[i].to_pylist()[0], "index": i, "epoch": 0} for i in numbers])


def inputs(given):
    return {name: given[name] for name in (*MODEL_INPUTS, *LABELS)}


def test_packed_samples_have_the_loss_of_padded_ones(material):
    model = grounding_model(small_processor()).eval()
    padded, packed = batch(material), batch(material, packing=True)
    assert len(packed["input_ids"]) < len(padded["input_ids"])
    with torch.no_grad():
        one, other = (model(**inputs(given)) for given in (padded, packed))
    torch.testing.assert_close(other.loss, one.loss, atol=1e-5, rtol=1e-5)
    assert other.loss_components["dice"] > 0


def test_truncation_drops_the_labels_of_the_phrases_it_cuts(material):
    whole = batch(material, numbers=(0,))
    length = whole["input_ids"].shape[1]
    ends = (whole["input_ids"][0] == small_processor().tokenizer.convert_tokens_to_ids("</p>")).nonzero()
    cut = batch(material, numbers=(0,), max_length=int(ends[0]) + 1, truncation="answer")
    assert cut["input_ids"].shape[1] < length
    assert cut["grounding_labels"][0]["mask_phrases"].tolist() == [0]
    loss = grounding_model(small_processor())(**inputs(cut)).loss
    assert loss.isfinite()


def test_accumulated_small_batches_train_like_one_large_batch(start, material):
    settings = {"model_name_or_path": material["model"], "eval_strategy": "no", "eval_on_start": False}
    large = start("vg", **settings)
    small = start("vg", per_device_train_batch_size=1, gradient_accumulation_steps=4, **settings)
    for name in ("loss", "grounding_loss", "grad_norm"):
        ours, theirs = ([line[name] for line in log(folder) if "loss" in line] for folder in (small, large))
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_arguments_of_another_stage_are_refused():
    with pytest.raises(VividMedError, match="unknown argument --freeze_segmenter"):
        parse(["--stage", "vlm", "--freeze_segmenter"])


@pytest.mark.parametrize("stage", ["align-sam", "vg"])
def test_resumed_run_continues_like_an_uninterrupted_one(start, material, tmp_path, stage):
    entry = {"name": "phantoms", "kind": "localization", "path": material["localization"]}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    settings = {
        "mixture": str(tmp_path / "mixture.yaml"),
        "dataset_name": None,
        "max_steps": 4,
        "eval_strategy": "no",
        "eval_on_start": False,
    }
    if stage == "vg":
        settings |= {"model_name_or_path": material["model"]}
    else:
        settings |= {"max_image_tokens": 8, "max_slice_tokens": 2, "low_image_tokens": 0}
    unbroken = start(stage, **settings)
    resumed = start(stage, "--resume_from_checkpoint", str(unbroken / "checkpoint-2"), **settings)
    expected = [line for line in log(unbroken) if "loss" in line][2:]
    found = [line for line in log(resumed) if "loss" in line]
    assert [line["step"] for line in found] == [3, 4]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
