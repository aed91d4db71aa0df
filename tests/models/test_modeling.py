"""The model as a citizen of the library: saving, precision, checkpointing, placement, refusal of wrong input."""

import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    DynamicCache,
)

from tests.fixtures.batches import DEEP, FLAT, make_sample, pad, ragged_samples, tiny_config, tiny_model
from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM


def training_gradients(model, batch: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_saved_weights_load_through_the_auto_classes_with_the_same_logits(tmp_path):
    model, batch = tiny_model(), pad(ragged_samples())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for auto_class in (AutoModelForImageTextToText, AutoModelForCausalLM):
        loaded = auto_class.from_pretrained(tmp_path)
        assert isinstance(loaded, VividMedForCausalLM)
        with torch.no_grad():
            assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_the_configuration_round_trips(tmp_path):
    config = tiny_config()
    config.text_config.rope_low_precision = True
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, VividMedConfig)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
    assert loaded.vision_config.patch_size == (4, 8, 8)


def test_models_import_without_the_readers_of_medical_files():
    absent = ["nibabel", "pydicom", "PIL", "datasets", "peft", "trl", "monai", "sentencepiece"]
    program = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed import VividMedConfig
print(VividMedForCausalLM(VividMedConfig.tiny()).num_parameters())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1e6 < int(done.stdout) < 5e6


def test_gradient_checkpointing_changes_nothing():
    model, batch = tiny_model().train(), pad(ragged_samples(), labels=True)
    reference = training_gradients(model, batch)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    for name, gradient in training_gradients(model, batch).items():
        torch.testing.assert_close(gradient, reference[name], msg=name)


def test_no_logits_are_made_in_training_and_all_of_them_in_evaluation():
    model, batch = tiny_model(), pad(ragged_samples(), labels=True)
    evaluated = model(**batch)
    assert evaluated.logits.shape == (*batch["input_ids"].shape, model.config.text_config.vocab_size)
    assert model(**batch, skip_logits=True).logits is None
    trained = model.train()(**batch)
    assert trained.logits is None
    torch.testing.assert_close(trained.loss, evaluated.loss)
    assert trained.loss_components.keys() == {"lm_loss"}


def test_the_loss_of_many_tokens_is_summed_in_chunks(monkeypatch):
    model, batch = tiny_model().train(), pad(ragged_samples(), labels=True)
    reference = training_gradients(model, batch)
    monkeypatch.setattr("vividmed.models.language_loss.CHUNK_TOKENS", 5)
    for name, gradient in training_gradients(model, batch).items():
        torch.testing.assert_close(gradient, reference[name], msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_float32(dtype):
    model, batch = tiny_model(), pad(ragged_samples(), labels=True)
    with torch.no_grad():
        expected = model(**batch)
        halved = model.to(dtype)(**batch)
    assert halved.logits.dtype == torch.float32
    assert (halved.logits - expected.logits)[batch["attention_mask"] > 0].abs().max() < 0.1
    assert halved.loss.dtype == torch.float32
    torch.testing.assert_close(halved.loss, expected.loss, atol=0.02, rtol=0.01)


def test_rotary_angles_stay_exact_in_low_precision_unless_asked_for_the_published_rounding():
    from vividmed.models.language import VividMedRotaryEmbedding

    config = tiny_config().text_config
    positions = torch.tensor([[257, 999]])
    exact, _ = VividMedRotaryEmbedding(config)(positions, torch.float32)
    ours, _ = VividMedRotaryEmbedding(config)(positions, torch.bfloat16)
    config.rope_low_precision = True
    published, _ = VividMedRotaryEmbedding(config)(positions, torch.bfloat16)
    rounded, _ = VividMedRotaryEmbedding(config)(torch.tensor([[256, 1000]]), torch.bfloat16)
    assert (ours - exact).abs().max() < 0.005
    assert (published - exact).abs().max() > 0.1
    assert torch.equal(published, rounded)


def test_device_map_auto_loads_and_runs(tmp_path):
    model, batch = tiny_model(), pad(ragged_samples())
    model.save_pretrained(tmp_path)
    loaded = VividMedForCausalLM.from_pretrained(tmp_path, device_map="auto")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def given_back(layer) -> torch.Tensor:
    """The weight of a quantised layer as the quantiser itself gives it back, in float32."""
    weight = layer.weight
    if type(layer).__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()
    return weight.CB.float() * weight.SCB[:, None] / 127


@pytest.mark.parametrize(
    ("quantisation", "layer_type", "tolerance"),
    [
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
            "Linear4bit",
            1e-3,
        ),
        # The inputs of these layers are rounded to 8 bits as well.
        ({"load_in_8bit": True}, "Linear8bitLt", 0.1),
    ],
    ids=["4 bits", "8 bits"],
)
def test_quantised_model_computes_with_what_the_quantiser_gives_back(
    tmp_path, quantisation, layer_type, tolerance
):
    pytest.importorskip("bitsandbytes")
    model, batch = tiny_model(), pad(ragged_samples())
    model.save_pretrained(tmp_path)
    loaded = VividMedForCausalLM.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**quantisation), dtype=torch.float32
    )
    quantised = {name: layer for name, layer in loaded.named_modules() if type(layer).__name__ == layer_type}
    assert "model.layers.0.self_attn.vision_expert_query_key_value" in quantised
    for name, layer in quantised.items():
        original = model.get_submodule(name).weight
        restored = given_back(layer)
        assert restored.shape == original.shape
        original.data.copy_(restored)
    with torch.no_grad():
        expected, actual = model(**batch).logits, loaded(**batch).logits
    assert (actual - expected).norm() < tolerance * expected.norm()
    assert loaded.generate(**pad(ragged_samples(), "left"), max_new_tokens=2, pad_token_id=0).shape[0] == 4


def test_new_token_rows_are_as_long_as_the_trained_ones():
    model = tiny_model()
    trained = model.get_input_embeddings().weight.norm(dim=1).mean()
    model.resize_token_embeddings(70)
    new = model.get_input_embeddings().weight[64:].norm(dim=1)
    assert new.shape == (6,)
    assert (new < 1.5 * trained).all()


def test_images_that_do_not_fill_their_places_are_refused():
    sample = make_sample(5, (FLAT,))
    batch = pad([sample])
    batch["pool_sizes"] = torch.tensor([[1, 1, 1]])
    with pytest.raises(VividMedError, match="reserve 5 places for image tokens but the images give 8"):
        tiny_model()(**batch)


def test_places_without_images_are_refused():
    batch = pad([make_sample(5, (FLAT,))])
    del batch["pixel_values"]
    with pytest.raises(VividMedError, match="reserve 5 places for image tokens but the images give 0"):
        tiny_model()(**batch)


def test_an_image_that_is_not_a_multiple_of_its_patch_is_refused():
    batch = pad([make_sample(5, (DEEP,))])
    batch["pixel_values"][0] = batch["pixel_values"][0][:, :, :15]
    batch["pool_sizes"][0] = 1
    with pytest.raises(
        ValueError, match=r"image of size \(8, 15, 16\) is not a multiple of its patch size \(4, 8, 8\)"
    ):
        tiny_model()(**batch)


def test_packed_rows_need_positions():
    from tests.fixtures.batches import pack

    batch = pack(ragged_samples())
    del batch["position_ids"]
    with pytest.raises(ValueError, match="packed rows need position_ids"):
        tiny_model()(**batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, batch: batch.pop("position_ids"), "independent turns need position_ids"),
        (lambda model, batch: batch.update(past_key_values=DynamicCache()), "cannot use a cache"),
        (lambda model, batch: setattr(model.config, "_attn_implementation", "flash_attention_2"), "'sdpa'"),
        (lambda model, batch: setattr(model.config.text_config, "attention_window", 4), "within a window"),
        (lambda model, batch: batch.update(turn_ids=batch["turn_ids"][:, 1:]), "turn_ids has shape"),
    ],
)
def test_independent_turns_are_refused_where_they_cannot_be_hidden_from_each_other(change, message):
    model, batch = tiny_model(), pad([make_sample(5), make_sample(6, length=7)])
    batch["turn_ids"] = torch.zeros_like(batch["input_ids"])
    change(model, batch)
    with pytest.raises(VividMedError, match=message):
        model(**batch)


def test_a_tokenizer_of_another_vocabulary_is_refused():
    class Tokenizer:
        def __len__(self):
            return 64

        def convert_tokens_to_ids(self, token):
            return {"<p>": 60, "</p>": 59}[token]

    with pytest.raises(VividMedError, match="id of </p> is 59 but the model expects 61"):
        tiny_config().check_tokenizer(Tokenizer())
