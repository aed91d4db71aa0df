"""Checkpoints that earlier code saved load with equal outputs."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from tests.fixtures.paths import CHECKPOINTS
from tests.fixtures.saved import batch_tensors, saved_outputs
from vividmed import VividMedForCausalLM
from vividmed.training.adapters.peft import load_adapter, merge_adapter

SAVED = CHECKPOINTS / "556ac31"


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(SAVED / "model")


def assert_as_saved(model, processor, folder, tolerance=1e-5):
    expected = load_file(folder / "outputs.safetensors")
    found = saved_outputs(model, processor)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=tolerance, rtol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_saved_processor_makes_the_same_batch(processor):
    expected = load_file(SAVED / "model" / "batch.safetensors")
    found = batch_tensors(processor)
    assert found.keys() >= expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "model_class", [VividMedForCausalLM, AutoModelForCausalLM, AutoModelForImageTextToText]
)
def test_saved_model_loads_with_equal_outputs(processor, model_class):
    model, report = model_class.from_pretrained(SAVED / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_as_saved(model, processor, SAVED / "model")


def test_saved_adapter_loads_with_equal_outputs(processor):
    base = VividMedForCausalLM.from_pretrained(SAVED / "model")
    assert_as_saved(load_adapter(base, SAVED / "adapter"), processor, SAVED / "adapter")


def test_saved_adapter_merges_to_equal_outputs(processor):
    base = VividMedForCausalLM.from_pretrained(SAVED / "model")
    assert_as_saved(merge_adapter(base, SAVED / "adapter"), processor, SAVED / "adapter", tolerance=1e-4)
