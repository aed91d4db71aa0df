import json
import shutil

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from trl import get_peft_config

from tests.fixtures.training import (
    MAX_LENGTH,
    MODEL_INPUTS,
    logged,
    make_row,
    small_model,
    small_processor,
    small_trainer,
)
from vividmed.data.batches.collator import VividMedCollator
from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.training.adapters.adapted_model import ADAPTER_WEIGHTS, BOUNDARY_TOKENS_FILE, boundary_tokens
from vividmed.training.adapters.groups import GROUNDING_MODULES, select_modules
from vividmed.training.adapters.peft import add_adapter, load_adapter, merge_adapter
from vividmed.training.loading import load_model
from vividmed.training.settings.grounding_arguments import GroundingArguments
from vividmed.training.settings.model_arguments import ModelArguments

PROCESSOR = small_processor()


def logits(model, numbers=(0, 3)):
    batch = VividMedCollator(PROCESSOR, max_length=MAX_LENGTH)([make_row(number) for number in numbers])
    with torch.no_grad():
        return model.eval()(**{name: batch[name] for name in MODEL_INPUTS}).logits


@pytest.fixture
def base(tmp_path):
    """A small base model saved with its processor."""
    folder = tmp_path / "base"
    small_model(PROCESSOR).save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def arguments(base, **kwargs):
    return ModelArguments(model_name_or_path=str(base), use_peft=True, lora_r=4, **kwargs)


def train(base, folder, **kwargs):
    model = load_model(arguments(base, **kwargs), PROCESSOR, base_folder=base, seed=0)
    trainer = small_trainer(folder, model=model, max_steps=2)
    trainer.train()
    trainer.save_final()
    return trainer


@pytest.mark.parametrize("option", ["use_rslora", "use_dora"])
def test_trained_adapter_reloads_and_merges_to_the_same_logits(base, tmp_path, option):
    trainer = train(base, tmp_path / "run", **{option: True})
    expected = logits(trainer.model)
    assert not torch.equal(expected, logits(VividMedForCausalLM.from_pretrained(base)))
    reloaded = load_adapter(VividMedForCausalLM.from_pretrained(base), tmp_path / "run")
    torch.testing.assert_close(logits(reloaded), expected, atol=1e-6, rtol=1e-6)
    merged = merge_adapter(VividMedForCausalLM.from_pretrained(base), tmp_path / "run")
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def tokens_run(tmp_path_factory):
    """An adapter with trained boundary tokens: folders of its base model and run, and its logits."""
    base, run = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("run")
    small_model(PROCESSOR).save_pretrained(base)
    PROCESSOR.save_pretrained(base)
    trainer = train(base, run, train_boundary_tokens=True)
    return base, run, logits(trainer.model)


def load_base(base):
    return VividMedForCausalLM.from_pretrained(base)


def in_own_file(run, folder):
    """A copy of an adapter as version 0.1 saved it."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    tokens = {name: tensors.pop(f"base_model.model.{name}") for name in boundary_tokens(load_base_of(folder))}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    save_file(tokens, folder / BOUNDARY_TOKENS_FILE)
    return folder


def load_base_of(folder):
    return load_base(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])


@pytest.mark.parametrize(
    "road",
    [
        lambda base, run, folder: load_adapter(load_base(base), run),
        lambda base, run, folder: load_adapter(load_base(base), in_own_file(run, folder)),
        lambda base, run, folder: merge_adapter(load_base(base), run),
        lambda base, run, folder: VividMedForCausalLM.from_pretrained(run),
        lambda base, run, folder: PeftModel.from_pretrained(load_base(base), run),
    ],
    ids=["load", "load version 0.1", "merge", "transformers", "peft"],
)
def test_boundary_tokens_are_part_of_the_adapter_on_every_road(tokens_run, tmp_path, road):
    base, run, expected = tokens_run
    assert not (run / BOUNDARY_TOKENS_FILE).exists()
    torch.testing.assert_close(logits(road(base, run, tmp_path / "copy")), expected, atol=1e-4, rtol=1e-4)


def test_adapter_loads_from_a_repository_as_from_a_folder(tokens_run, monkeypatch):
    base, run, expected = tokens_run

    def download(place, name, *, repo_type, revision):
        assert (place, repo_type, revision) == ("lab/adapter", "model", "v1")
        if not (run / name).is_file():
            raise LocalEntryNotFoundError(name)
        return str(run / name)

    monkeypatch.setattr("vividmed.training.hub_files.hf_hub_download", download)
    for load in (load_adapter, merge_adapter):
        found = logits(load(load_base(base), "lab/adapter", revision="v1"))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_activations_keep_the_gradients_of_adapters(base, reentrant):
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)  # of the new adapter
        options = {
            "lora_dropout": 0.0,
            "lora_target_modules": ["vision_expert_query_key_value", "fc1"],
            "lora_modules_to_save": [],
        }
        model = load_model(arguments(base, **options), PROCESSOR, base_folder=base, seed=0).train()
        if checkpointed:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": reentrant})
        batch = VividMedCollator(PROCESSOR, max_length=MAX_LENGTH)([make_row(0), make_row(3)])
        dropped = ("sample_ids", "size", "geometry", "num_samples")
        model(**{name: value for name, value in batch.items() if name not in dropped}).loss.backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.requires_grad})
    assert [name for name, gradient in found[0].items() if ".vision." in name and gradient is not None]
    for name, gradient in found[0].items():
        assert (gradient is None) == (found[1][name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_continued_adapter_trains_and_saves_its_boundary_tokens(tokens_run, tmp_path):
    base, run, expected = tokens_run
    model = load_model(ModelArguments(model_name_or_path=str(run)), PROCESSOR, base_folder=base, seed=0)
    torch.testing.assert_close(logits(model), expected, atol=1e-6, rtol=1e-6)
    before = {name: value.clone() for name, value in boundary_tokens(model).items()}
    trainer = small_trainer(tmp_path / "run", model=model, max_steps=1)
    trainer.train()
    assert not any(torch.equal(value, before[name]) for name, value in boundary_tokens(model).items())
    trainer.save_final()
    reloaded = load_adapter(load_base(base), tmp_path / "run")
    torch.testing.assert_close(logits(reloaded), logits(model), atol=1e-6, rtol=1e-6)
    reloaded.save_pretrained(tmp_path / "again")
    again = load_adapter(load_base(base), tmp_path / "again")
    torch.testing.assert_close(logits(again), logits(model), atol=1e-6, rtol=1e-6)


def test_best_adapter_has_the_boundary_tokens_of_its_own_step(base, tmp_path):
    model = load_model(arguments(base, train_boundary_tokens=True), PROCESSOR, base_folder=base, seed=0)
    settings = {"max_steps": 2, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    trainer = small_trainer(
        tmp_path, model=model, load_best_model_at_end=True, metric_for_best_model="eval_loss",
        greater_is_better=True, learning_rate=0.05, **settings
    )  # fmt: skip
    trainer.train()
    best = load_adapter(load_base(base), trainer.state.best_model_checkpoint)
    torch.testing.assert_close(logits(trainer.model), logits(best), atol=1e-6, rtol=1e-6)
    for name, value in boundary_tokens(best).items():
        assert torch.equal(value, boundary_tokens(trainer.model)[name])


def test_boundary_tokens_stay_frozen_unless_asked_for(base, tmp_path):
    before = boundary_tokens(load_base(base))
    frozen = train(base, tmp_path / "frozen")
    assert all(torch.equal(value, before[name]) for name, value in boundary_tokens(frozen.model).items())
    assert not [name for name in load_file(tmp_path / "frozen" / ADAPTER_WEIGHTS) if "boi" in name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"base_model.model.sam.mask_decoder.weight": torch.ones(2)}, "published names"),
        (lambda t: t | {"base_model.model.isam_model.x.weight": torch.ones(2)}, "published names"),
        (lambda t: t | {"base_model.model.vg_proj.0.weight": torch.ones(2)}, "published names"),
        (
            lambda t: t | {"base_model.model.other.weight": torch.ones(2)},
            "no place for 1 tensors .*other.weight",
        ),
        (lambda t: {name: t[name] for name in list(t)[1:]}, "lacks 1 tensors"),
        (lambda t: {name: t[name] for name in t if "boi" not in name}, "lacks 1 tensors .*boi"),
        (
            lambda t: t | {"base_model.model.model.vision.boi": torch.full((1, 1, 32), torch.nan)},
            "NaN or infinite",
        ),
        (lambda t: t | {"base_model.model.model.vision.boi": torch.ones(1, 1, 7)}, "does not fit"),
    ],
)
def test_every_tensor_of_an_adapter_is_accounted_for_or_loading_is_refused(
    tokens_run, tmp_path, change, message
):
    base, run, _ = tokens_run
    shutil.copytree(run, tmp_path / "copy")
    tensors = load_file(run / ADAPTER_WEIGHTS)
    save_file(change(tensors), tmp_path / "copy" / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(VividMedError, match=message) as caught:
        load_adapter(load_base(base), tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_truncated_adapter_is_named(tokens_run):
    base, run, _ = tokens_run
    (run / "truncated").mkdir(exist_ok=True)
    shutil.copy(run / "adapter_config.json", run / "truncated")
    (run / "truncated" / ADAPTER_WEIGHTS).write_bytes((run / ADAPTER_WEIGHTS).read_bytes()[:1000])
    with pytest.raises(VividMedError, match="cannot be read"):
        load_adapter(load_base(base), run / "truncated")


def test_adapter_continues_in_a_stage_with_segmenters_and_takes_them_along(tokens_run, tmp_path):
    """An adapter of stage vlm goes on to stage grg, whose segmenters it did not train."""
    model = VividMedForCausalLM(VividMedConfig.tiny(len(PROCESSOR.tokenizer), grounding=True))
    model.save_pretrained(tmp_path / "base")
    PROCESSOR.save_pretrained(tmp_path / "base")
    options = {"base_folder": tmp_path / "kept", "seed": 0}
    first = load_model(arguments(tmp_path / "base"), PROCESSOR, frozen=GROUNDING_MODULES, **options)
    first.save_pretrained(tmp_path / "vlm")
    PROCESSOR.save_pretrained(tmp_path / "vlm")
    assert not [name for name in load_file(tmp_path / "vlm" / ADAPTER_WEIGHTS) if "segmenter" in name]
    following = ModelArguments(model_name_or_path=str(tmp_path / "vlm"))
    second = load_model(following, PROCESSOR, grounding=GroundingArguments(), **options)
    assert following.use_peft
    assert following.lora_r == 4
    trainable = [name for name, parameter in second.named_parameters() if parameter.requires_grad]
    assert [name for name in trainable if ".segmenter." in name]
    second.save_pretrained(tmp_path / "grg")
    third = load_adapter(load_base(tmp_path / "base"), tmp_path / "grg")
    for name, parameter in third.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name


def test_trainable_weights_are_float32_unless_asked_otherwise(base):
    options = {"base_folder": base, "seed": 0}
    whole = load_model(ModelArguments(str(base), dtype="bfloat16"), PROCESSOR, **options)
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}
    published = ModelArguments(str(base), dtype="bfloat16", trainable_dtype="as_loaded")
    assert {each.dtype for each in load_model(published, PROCESSOR, **options).parameters()} == {
        torch.bfloat16
    }
    adapted = load_model(arguments(base, dtype="bfloat16"), PROCESSOR, **options)
    types = {(each.requires_grad, each.dtype) for each in adapted.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


def test_resumed_adapter_training_repeats_the_unbroken_one(base, tmp_path):
    losses = []
    for resume in (None, str(tmp_path / "run" / "checkpoint-2")):
        model = load_model(arguments(base, train_boundary_tokens=True), PROCESSOR, base_folder=base, seed=0)
        trainer = small_trainer(tmp_path / "run", model=model, max_steps=4, save_steps=2)
        trainer.train(resume_from_checkpoint=resume)
        losses.append(logged(trainer))
    assert losses[0] == losses[1]


def test_frozen_vision_tower_has_no_adapter_and_nothing_trainable(base):
    model = load_model(arguments(base, freeze_vision=True), PROCESSOR, base_folder=base, seed=0)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not [name for name in trainable if "model.vision." in name]
    assert not [name for name in trainable if "lora_" in name and "language_" in name]
    assert [name for name in trainable if "lora_" in name and "vision_expert" in name]
    both = load_model(
        arguments(base, freeze_vision=True, adapt_language=True), PROCESSOR, base_folder=base, seed=0
    )
    assert [name for name, _ in both.named_parameters() if "lora_" in name and "language_" in name]


def test_modules_that_the_user_names_are_taken(base):
    model = load_model(
        arguments(base, lora_target_modules=[".*language_expert_dense"]), PROCESSOR, base_folder=base, seed=0
    )
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in get_peft_model_state_dict(model)}
    assert adapted == {"language_expert_dense"}


def test_frozen_segmenters_are_left_out_whole():
    model = VividMedForCausalLM(VividMedConfig.tiny(grounding=True))
    all_names, kept = select_modules(model), select_modules(model, frozen=GROUNDING_MODULES)
    assert [name for name in all_names.modules_to_save if name.startswith(GROUNDING_MODULES)]
    assert not [name for name in kept.modules_to_save if name.startswith(GROUNDING_MODULES)]
    assert kept.target_modules == all_names.target_modules


def test_modules_that_end_alike_are_not_trained_by_accident(base):
    model = VividMedForCausalLM(VividMedConfig.tiny(grounding=True))
    selection = select_modules(model, frozen=["instance_segmenter"])
    with pytest.raises(VividMedError, match=r"segmenter\..* whole would also train instance_segmenter\."):
        add_adapter(model, get_peft_config(arguments(base)), selection)


def test_segmenters_are_not_quantised(base):
    pytest.importorskip("bitsandbytes")
    VividMedForCausalLM(VividMedConfig.tiny(len(PROCESSOR.tokenizer), grounding=True)).save_pretrained(base)
    model = load_model(
        arguments(base, load_in_4bit=True), PROCESSOR, base_folder=base, seed=0, frozen=GROUNDING_MODULES
    )
    kinds = {
        type(module).__name__
        for name, module in model.get_base_model().named_modules()
        if name.startswith(GROUNDING_MODULES)
    }
    assert "Linear" in kinds
    assert "Linear4bit" not in kinds


def test_four_bit_model_trains_and_its_adapter_reloads_to_the_same_logits(base, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    options = {"load_in_4bit": True, "use_bnb_nested_quant": True}
    trainer = train(base, tmp_path / "run", **options)
    quantised = {
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, module in trainer.model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    }
    assert "model.layers.0.self_attn.vision_expert_query_key_value" in quantised
    assert "model.vision.transformer.layers.0.mlp.fc1" in quantised
    assert not [name for name in quantised if name.startswith(("lm_head", "model.vision.patch_embedding"))]

    expected = logits(trainer.model)
    fresh = load_model(arguments(base, **options), PROCESSOR, base_folder=base, seed=0).unload()
    torch.testing.assert_close(logits(load_adapter(fresh, tmp_path / "run")), expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(VividMedError, match="quantised"):
        merge_adapter(fresh, tmp_path / "run")


def test_folder_without_an_adapter_is_named(base, tmp_path):
    with pytest.raises(VividMedError, match=r"adapter_config\.json"):
        load_adapter(small_model(PROCESSOR), tmp_path)
