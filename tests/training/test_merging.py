"""A merged model answers as the adapter does, whatever was trained and however its base model is stored."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests.fixtures.training import logged, make_row, small_config, small_processor, small_trainer
from vividmed.errors import VividMedError
from vividmed.models.adapters.merging import AdapterMerger, merge_checkpoint
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.training.adapters.adapted_model import ADAPTER_WEIGHTS
from vividmed.training.adapters.merging import save_merged_model
from vividmed.training.adapters.peft import load_adapter, merge_adapter
from vividmed.training.loading import load_model
from vividmed.training.settings.model_arguments import ModelArguments

PROCESSOR = small_processor()
BATCH = PROCESSOR(images=make_row(0)["images"], text="What is the modality?")
TARGETS = ["language_expert_query_key_value", "vision_expert_dense", "gate_proj", "fc1"]
NEW_ROWS = [1030, 1031]


def make_adapter(folder, *, tied=False, dtype=torch.float32, shards="5GB", targets=(), **options):
    """Save a base model and an adapter whose every weight is drawn at random; returns the adapted model."""
    torch.manual_seed(0)
    config = small_config(PROCESSOR)
    config.tie_word_embeddings = tied
    VividMedForCausalLM(config).to(dtype).save_pretrained(folder / "base", max_shard_size=shards)
    settings = {
        "r": 4,
        "task_type": "CAUSAL_LM",
        "target_modules": [*TARGETS, *targets],
        "modules_to_save": ["model.norm"],
    }
    base = VividMedForCausalLM.from_pretrained(folder / "base", dtype="auto")
    model = get_peft_model(base, LoraConfig(**(settings | options)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    PROCESSOR.save_pretrained(folder / "adapter")
    return model.eval()


@torch.no_grad()
def logits(model):
    return model.eval()(**BATCH).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"fc1": 2}, "alpha_pattern": {"layers.0.mlp.*gate_proj": 3}, "shards": "200KB"},
        {"use_rslora": True, "modules_to_save": ["lm_head", "embed_tokens"]},
        {"use_dora": True, "modules_to_save": ["embed_tokens"]},
        {"trainable_token_indices": {"model.embed_tokens": NEW_ROWS, "lm_head": NEW_ROWS}},
        {"targets": ["embed_tokens"]},
    ],
    ids=[
        "patterns and shards",
        "rslora, whole head",
        "dora, whole embedding",
        "token rows",
        "low-rank embedding",
    ],
)
def test_merged_model_equals_the_adapted_one(tmp_path, options, tied):
    expected = logits(make_adapter(tmp_path, tied=tied, **options))
    save_merged_model(tmp_path / "adapter", tmp_path / "merged")
    torch.testing.assert_close(
        logits(VividMedForCausalLM.from_pretrained(tmp_path / "merged")), expected, atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(
        logits(VividMedForCausalLM.from_pretrained(tmp_path / "base")), expected, atol=1e-2
    )


def test_merged_bfloat16_weights_differ_by_their_rounding_only(tmp_path):
    expected = logits(make_adapter(tmp_path, dtype=torch.bfloat16).float())
    save_merged_model(tmp_path / "adapter", tmp_path / "merged")
    files = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in files.values()} == {torch.bfloat16}
    found = logits(VividMedForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    error = (found - expected).square().mean().sqrt()
    assert error < 1e-3, error


def test_merging_into_float32_does_not_round_to_the_precision_of_the_base(tmp_path):
    expected = logits(make_adapter(tmp_path, dtype=torch.bfloat16).float())
    save_merged_model(tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    found = logits(VividMedForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def save_and_load_merged(folder):
    save_merged_model(folder / "adapter", folder / "merged")
    return VividMedForCausalLM.from_pretrained(folder / "merged")


def load_and_merge(folder):
    return merge_adapter(VividMedForCausalLM.from_pretrained(folder / "base"), folder / "adapter")


@pytest.mark.parametrize("merge", [save_and_load_merged, load_and_merge])
@pytest.mark.parametrize(
    ("base", "record", "thresholds", "warning"),
    [
        ({}, {"presence_thresholds": {"mask": 0.7}}, {"mask": 0.7}, None),
        ({"mask": 0.2}, {"presence_thresholds": {"mask": 0.7}}, {"mask": 0.7}, None),
        ({"mask": 0.2}, {}, {"mask": 0.2}, "calibrated without the adapter"),
        (
            {},
            {"presence_thresholds": {"mask": 0.7}, "quantised_base": True},
            {"mask": 0.7},
            "calibrated on a base model that was quantised",
        ),
    ],
    ids=["of the adapter", "of both", "of the base model", "of the quantised base model"],
)
def test_merged_model_keeps_thresholds_and_says_when_they_are_of_other_weights(
    tmp_path, caplog, merge, base, record, thresholds, warning
):
    make_adapter(tmp_path)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"presence_thresholds": base}))
    record |= {"target_forms": {"liver": "mask"}}
    (tmp_path / "adapter" / "grounding.json").write_text(json.dumps(record))
    found = merge(tmp_path).config
    assert (found.target_forms, found.presence_thresholds) == ({"liver": "mask"}, thresholds)
    assert [warning in message for message in caplog.messages if "presence thresholds" in message] == (
        [True] if warning else []
    )


def test_merging_writes_shards_no_larger_than_asked_for(tmp_path):
    make_adapter(tmp_path, shards="200KB")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)
    (tmp_path / "out").mkdir()
    written = merge_checkpoint(
        tmp_path / "base",
        AdapterMerger(config, tensors, tensors.__getitem__),
        tmp_path / "out",
        shard_bytes=150_000,
    )
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    largest = max(tensor.nbytes for path in files for tensor in load_file(path).values())
    assert all(path.stat().st_size < max(150_000, largest) + 10_000 for path in files)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == written
    assert {path.name for path in files} == set(index["weight_map"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {
                name: t[name] for name in t if "layers.0.self_attn" not in name or "lora_B" not in name
            },
            "lacks",
        ),
        (lambda t: t | {"base_model.model.model.other.weight": torch.ones(2)}, "no place for 1 tensors"),
        (lambda t: t | {"base_model.model.model.norm.weight": torch.ones(7)}, r"shape \(7,\), not \(32,\)"),
        (lambda t: t | {"base_model.model.model.norm.weight": torch.full((32,), torch.nan)}, "NaN"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, change, message):
    make_adapter(tmp_path)
    path = tmp_path / "adapter" / ADAPTER_WEIGHTS
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(VividMedError, match=message) as caught:
        save_merged_model(tmp_path / "adapter", tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adapter", "base"]


def test_four_bit_run_resumes_reloads_and_merges_onto_the_unquantised_base(tmp_path):
    pytest.importorskip("bitsandbytes")
    base, run = tmp_path / "base", tmp_path / "run"
    VividMedForCausalLM(small_config(PROCESSOR)).save_pretrained(base)
    PROCESSOR.save_pretrained(base)

    def quantised(source):
        groups = ["all"] if source == base else None
        args = ModelArguments(
            str(source),
            use_peft=True,
            lora_r=4,
            adapter_groups=groups,
            load_in_4bit=True,
            use_bnb_nested_quant=True,
        )
        return load_model(args, PROCESSOR, base_folder=base, seed=0)

    losses = []
    for checkpoint in (None, str(run / "checkpoint-10")):
        trainer = small_trainer(run, model=quantised(base), max_steps=20, save_steps=10)
        trainer.train(resume_from_checkpoint=checkpoint)
        losses.append(logged(trainer))
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    trainer.save_final()
    torch.testing.assert_close(logits(quantised(run)), logits(trainer.model), atol=1e-6, rtol=1e-6)
    save_merged_model(run, tmp_path / "merged")
    expected = logits(load_adapter(VividMedForCausalLM.from_pretrained(base), run))
    found = logits(VividMedForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["of the system", "of safetensors"],
)
def test_a_full_disk_ends_in_one_line_that_does_not_blame_the_adapter(tmp_path, monkeypatch, error):
    make_adapter(tmp_path, shards="200KB")
    written = []

    def full(tensors, path, **options):
        if len(written) == 2:
            raise error
        written.append(path)
        save_file(tensors, path, **options)

    monkeypatch.setattr("vividmed.models.adapters.merging.save_file", full)
    monkeypatch.setattr(
        merge_checkpoint, "__kwdefaults__", {**merge_checkpoint.__kwdefaults__, "shard_bytes": 200_000}
    )
    with pytest.raises(VividMedError, match=r"cannot be written \(.*No space left on device") as refused:
        save_merged_model(tmp_path / "adapter", tmp_path / "merged")
    assert "\n" not in str(refused.value)
    assert "adapter_model" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter"}
