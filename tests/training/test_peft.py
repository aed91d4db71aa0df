import pytest
import torch
from peft import get_peft_model_state_dict
from trl import get_peft_config

from tests.fixtures.training import MAX_LENGTH, logged, make_row, small_model, small_processor, small_trainer
from vividmed.data.batches.collator import VividMedCollator
from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.training.arguments import ModelArguments
from vividmed.training.loading import load_model
from vividmed.training.peft import (
    BOUNDARY_TOKENS_FILE,
    GROUNDING_MODULES,
    add_adapter,
    boundary_tokens,
    load_adapter,
    merge_adapter,
    select_modules,
)

PROCESSOR = small_processor()


def logits(model, numbers=(0, 3)):
    batch = VividMedCollator(PROCESSOR, max_length=MAX_LENGTH)([make_row(number) for number in numbers])
    names = ("input_ids", "token_type_ids", "position_ids", "attention_mask")
    with torch.no_grad():
        return model.eval()(
            **{name: batch[name] for name in (*names, "pixel_values", "patch_sizes", "pool_sizes")}
        ).logits


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


@pytest.mark.parametrize("option", ["use_rslora", "use_dora", "train_boundary_tokens"])
def test_trained_adapter_reloads_and_merges_to_the_same_logits(base, tmp_path, option):
    trainer = train(base, tmp_path / "run", **{option: True})
    expected = logits(trainer.model)
    assert not torch.equal(expected, logits(VividMedForCausalLM.from_pretrained(base)))
    reloaded = load_adapter(VividMedForCausalLM.from_pretrained(base), tmp_path / "run")
    torch.testing.assert_close(logits(reloaded), expected, atol=1e-6, rtol=1e-6)
    merged = merge_adapter(VividMedForCausalLM.from_pretrained(base), tmp_path / "run")
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)


def test_boundary_tokens_train_and_are_saved_only_when_asked(base, tmp_path):
    before = {
        name: value.clone()
        for name, value in boundary_tokens(VividMedForCausalLM.from_pretrained(base)).items()
    }
    frozen = train(base, tmp_path / "frozen")
    assert not (tmp_path / "frozen" / BOUNDARY_TOKENS_FILE).exists()
    assert all(torch.equal(value, before[name]) for name, value in boundary_tokens(frozen.model).items())
    trained = train(base, tmp_path / "trained", train_boundary_tokens=True)
    assert (tmp_path / "trained" / BOUNDARY_TOKENS_FILE).is_file()
    assert not any(torch.equal(value, before[name]) for name, value in boundary_tokens(trained.model).items())


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
