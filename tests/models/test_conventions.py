"""The conventions of transformers hold: layouts, labels, loading, gradients, precision, wrong input."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM

from tests.fixtures.batches import DEEP, FLAT, make_sample, pack, pad, ragged_samples, tiny_config, tiny_model
from tests.fixtures.phrases import (
    SEGMENTER,
    batch_of,
    grounded_model,
    mixed_labels,
    mixed_samples,
)
from vividmed import (
    InstanceSegmenter,
    Segmenter,
    SegmenterConfig,
    VividMedError,
    VividMedForCausalLM,
    VividMedModel,
)

# Packed rows


def without_mask(batch: dict, keep: int) -> dict:
    """The padding-free convention: rows of real tokens only, no mask, positions that start anew."""
    names = ("input_ids", "token_type_ids", "position_ids", "labels", "label_weights")
    batch = batch | {name: batch[name][:, :keep] for name in names if name in batch}
    del batch["attention_mask"]
    return batch


@pytest.mark.parametrize("form", ["no mask", "mask of ones", "padding"])
@torch.no_grad()
def test_positions_that_start_again_separate_samples(form):
    model, samples = tiny_model(), ragged_samples()
    length = sum(map(len, samples))
    batch = pack(samples)
    if form == "padding":
        batch["attention_mask"] = batch["attention_mask"].clamp(max=1)
    else:
        batch = without_mask(batch, length)
        if form == "mask of ones":
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    logits = model(**batch).logits[0]
    torch.testing.assert_close(
        logits[:length], model(**pack(samples)).logits[0, :length], atol=1e-5, rtol=1e-5
    )


def test_padding_free_samples_ground_like_padded_ones():
    model, samples, labels = grounded_model(), mixed_samples(), mixed_labels()
    packed = without_mask(batch_of(samples, "packed"), sum(map(len, samples)))
    expected = model(**batch_of(samples), grounding_labels=labels)
    outputs = model(**packed, grounding_labels=labels)
    torch.testing.assert_close(outputs.loss, expected.loss)
    for ours, theirs in zip(outputs.mask_logits, expected.mask_logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_packed_rows_refuse_a_cache_and_generation():
    from transformers import DynamicCache

    model, batch = tiny_model(), pack(ragged_samples())
    with pytest.raises(VividMedError, match="packed samples cannot use a cache"):
        model(**batch, past_key_values=DynamicCache(config=model.config))
    for packed in (batch, without_mask(batch, sum(map(len, ragged_samples())))):
        with pytest.raises(VividMedError, match="one sample per row"):
            model.generate(**packed, max_new_tokens=2)


# Labels


def test_shift_labels_are_another_name_of_labels():
    model, batch = tiny_model(), pad(ragged_samples(), labels=True)
    expected = model(**batch).loss
    labels = batch.pop("labels")
    others = labels.roll(3, dims=0)
    for given in ({}, {"labels": labels}, {"labels": others}, {"labels": batch["input_ids"]}):
        torch.testing.assert_close(model(**batch, **given, shift_labels=labels).loss, expected)
    shifted_again = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    with pytest.raises(VividMedError, match="shifted already"):
        model(**batch, labels=labels, shift_labels=shifted_again)


@pytest.mark.parametrize("layout", ["left", "right", "packed"])
@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_labels_that_repeat_the_input_are_refused(layout, name):
    samples = ragged_samples()
    batch = pack(samples) if layout == "packed" else pad(samples, layout)
    supervised = (batch["token_type_ids"] == 0) & (batch["attention_mask"] > 0)
    labels = batch["input_ids"].masked_fill(~supervised, -100)
    with pytest.raises(VividMedError, match="already shifted"):
        tiny_model()(**batch, **{name: labels})


def test_a_text_of_one_repeated_token_may_have_labels_like_its_input():
    ids = torch.full((1, 6), 7)
    assert tiny_model()(input_ids=ids, labels=torch.full((1, 6), 7)).loss > 0


# Outputs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_returned_states_carry_gradients(attention):
    model = tiny_model(attention=attention)
    outputs = model(**pad(ragged_samples(), labels=True), output_hidden_states=True)
    for states in outputs.hidden_states:
        states.retain_grad()
    outputs.loss.backward()
    assert all(states.grad.abs().max() > 0 for states in outputs.hidden_states)


def test_the_drawn_masks_come_with_the_output():
    model = grounded_model()
    masks = model(**batch_of(mixed_samples()), grounding_labels=mixed_labels()).mask_logits
    assert [len(drawn) for drawn in masks] == [2, 0, 0, 0]
    assert masks[0].shape == (2, 8, 16, 16)
    assert not masks[0].requires_grad
    assert model(**batch_of(mixed_samples())).mask_logits is None


def test_the_head_model_encodes_images_for_forward_and_generate():
    model, batch = tiny_model(), pad(ragged_samples(), "left")
    images = {name: batch.pop(name) for name in ("pixel_values", "patch_sizes", "pool_sizes")}
    encoded = {"image": model.get_image_features(**images)}
    torch.testing.assert_close(
        model(**batch, mm_encoder_outputs=encoded).logits, model(**batch, **images).logits
    )
    ours = model.generate(**batch, mm_encoder_outputs=encoded, max_new_tokens=3, pad_token_id=0)
    assert torch.equal(ours, model.generate(**batch, **images, max_new_tokens=3, pad_token_id=0))


# Loading


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounded")
    grounded_model().save_pretrained(folder)
    return folder


def altered(checkpoint, tmp_path, change):
    """A copy of the checkpoint whose tensors ``change`` has edited in place."""
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


def test_the_multimodal_auto_class_loads_the_model(checkpoint):
    assert isinstance(AutoModelForMultimodalLM.from_pretrained(checkpoint), VividMedForCausalLM)


def test_the_base_model_loads_from_a_grounding_checkpoint_without_complaint(checkpoint):
    model, report = VividMedModel.from_pretrained(checkpoint, output_loading_info=True)
    assert isinstance(model, VividMedModel)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]


NAMES = [
    "model.layers.1.mlp.vision_mlp.up_proj.weight",
    "segmenter.mask_decoder.mask_tokens.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 tensors are missing \({}\)"),
        (float("nan"), r"1 tensors contain NaN or infinite values \({}\)"),
        (float("-inf"), r"1 tensors contain NaN or infinite values \({}\)"),
        ("shape", r"1 tensors have other shapes than config.json asks for \({}\)"),
    ],
)
def test_broken_checkpoints_are_refused_by_name_unless_asked_for(checkpoint, tmp_path, name, change, message):
    def edit(tensors):
        if change == "missing":
            del tensors[name]
        elif change == "shape":
            tensors[name] = tensors[name][:-1].clone()
        else:
            tensors[name].view(-1)[-1] = change

    folder = altered(checkpoint, tmp_path, edit)
    with pytest.raises(VividMedError, match=message.format(name)):
        VividMedForCausalLM.from_pretrained(folder)
    loaded = VividMedForCausalLM.from_pretrained(folder, check_weights=False)
    assert isinstance(loaded, VividMedForCausalLM)


@pytest.mark.parametrize("kind", [Segmenter, InstanceSegmenter])
def test_segmenters_refuse_broken_checkpoints_too(kind, tmp_path):
    model = kind(
        kind.config_class(**SEGMENTER) if hasattr(kind, "config_class") else SegmenterConfig(**SEGMENTER)
    )
    with torch.no_grad():
        model.image_encoder.norm.weight[3] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(VividMedError, match=r"NaN or infinite values \(image_encoder.norm.weight\)"):
        kind.from_pretrained(tmp_path)


def test_weights_that_cannot_be_read_end_in_one_line(checkpoint, tmp_path):
    folder = altered(checkpoint, tmp_path, lambda tensors: None)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:100])
    with pytest.raises(VividMedError, match="weights cannot be read"):
        VividMedForCausalLM.from_pretrained(folder)


# Precision and checkpointing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_turned_to_half_precision_grounds(dtype):
    model = grounded_model().eval()
    batch = batch_of(mixed_samples())
    inputs = {name: value for name, value in batch.items() if "label" not in name}
    expected = model.ground(**inputs)
    halved = model.to(dtype)
    found = halved.ground(**inputs)
    for ours, theirs in ((found.masks, expected.masks), (found.boxes, expected.boxes)):
        for half, full in zip(ours, theirs, strict=True):
            assert (half is None) == (full is None)
            if half is not None:
                assert half.dtype == torch.float32
                torch.testing.assert_close(half, full, atol=0.2, rtol=0.1)
    loss = halved.train()(**batch, grounding_labels=mixed_labels()).loss
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "targets", [r"model\.vision\..*\.(dense|fc1)", r"model\.layers\..*dense", "image_encoder.*qkv"]
)
def test_checkpointing_keeps_the_gradients_of_adapters_beside_frozen_weights(targets, reentrant):
    torch.manual_seed(0)
    config = LoraConfig(target_modules=targets if "(" in targets or "layers" in targets else r".*" + targets)
    if "vision" in targets or "layers" in targets:
        config = LoraConfig(target_modules=targets)
    model = get_peft_model(grounded_model(), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = batch_of(mixed_samples())

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**batch, grounding_labels=mixed_labels()).loss.backward()
        return {
            n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None
        }

    expected = gradients()
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    base = model.base_model.model
    base.activation_checkpointing_enable({"use_reentrant": reentrant})
    found = gradients()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


# Wrong input


def wrong(name, value):
    return lambda batch: batch | {name: value(batch[name]) if callable(value) else value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            wrong("input_ids", lambda ids: ids.index_fill(1, torch.tensor([8]), -1)),
            "contain -1, but token ids run",
        ),
        (
            wrong("input_ids", lambda ids: ids.index_fill(1, torch.tensor([8]), 64)),
            "contain 64, but token ids run",
        ),
        (wrong("input_ids", lambda ids: ids[0]), "not a tensor of shape"),
        (wrong("attention_mask", lambda mask: mask[:, 1:]), "attention_mask has shape"),
        (wrong("position_ids", lambda ids: ids[:, :-2]), "position_ids has shape"),
        (wrong("position_ids", lambda ids: ids[0]), "position_ids has shape"),
        (wrong("token_type_ids", lambda ids: ids[:1].repeat(3, 1)), "token_type_ids has shape"),
        (wrong("labels", lambda labels: labels[:, 1:]), "labels has shape"),
        (wrong("label_weights", lambda weights: weights[:, 1:]), "label_weights has shape"),
        (
            wrong("pixel_values", lambda images: [image[0] for image in images]),
            r"image 0 has shape \(1, 16, 24\)",
        ),
        (
            wrong("pixel_values", lambda images: [image[:2] for image in images]),
            r"image 0 has shape \(2, 1, 16, 24\)",
        ),
        (wrong("patch_sizes", lambda sizes: sizes[:1]), "2 images but 1 patch_sizes and 2 pool_sizes"),
        (wrong("pool_sizes", lambda sizes: sizes[:, :2]), "pool_sizes have shape"),
        (
            wrong("patch_sizes", torch.tensor([[1, 8, 8], [3, 8, 8]])),
            "does not fit the kernel",
        ),
        (wrong("pool_sizes", lambda sizes: sizes * 0), "pool size"),
        (wrong("inputs_embeds", torch.zeros(2, 4, 32)), "exactly one of"),
    ],
)
def test_inputs_that_do_not_fit_end_in_one_line(change, message):
    batch = pad([make_sample(1, (FLAT,)), make_sample(2, (DEEP,))], labels=True)
    with pytest.raises(VividMedError, match=message):
        tiny_model()(**change(batch))


@pytest.mark.parametrize("token", [-1, 64, 10**6])
@pytest.mark.parametrize("length", [1, 4])
def test_generation_refuses_ids_outside_the_vocabulary(token, length):
    with pytest.raises(VividMedError, match=f"input_ids contain {token}"):
        tiny_model().generate(torch.full((1, length), token), max_new_tokens=2)


def test_ids_at_the_places_of_images_are_not_read():
    model, batch = tiny_model(), pad(ragged_samples())
    expected = model(**batch).logits
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["token_type_ids"] > 0, -200)
    assert torch.equal(model(**batch).logits, expected)


def test_losses_are_chosen_when_the_model_is_built_or_loaded(checkpoint):
    from vividmed.models.phrases.grounding import GroundingLosses
    from vividmed.models.segmenter.losses import MaskLoss

    losses = GroundingLosses(masks=MaskLoss(dice_weight=0.0, focal_weight=0.0))
    batch, labels = batch_of(mixed_samples()), mixed_labels()
    plain = VividMedForCausalLM.from_pretrained(checkpoint)(**batch, grounding_labels=labels)
    loaded = VividMedForCausalLM.from_pretrained(checkpoint, grounding_losses=losses)
    parts = loaded(**batch, grounding_labels=labels).loss_components
    weighted = 2 * (plain.loss_components["dice"] + plain.loss_components["focal"]) / len(labels)
    torch.testing.assert_close(parts["grounding_loss"], plain.loss_components["grounding_loss"] - weighted)
    torch.manual_seed(0)
    built = VividMedForCausalLM(
        tiny_config(segmenter_config=SEGMENTER, instance_segmenter_config=SEGMENTER), grounding_losses=losses
    )
    assert built.grounding_losses is losses
    assert copy.deepcopy(built).grounding_losses.masks.weights == {"dice": 0.0, "focal": 0.0}


def test_loading_on_the_meta_device_gives_the_advice_of_the_library(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with torch.device("meta"), pytest.raises(RuntimeError, match="with a meta device context manager"):
        VividMedForCausalLM.from_pretrained(tmp_path)
