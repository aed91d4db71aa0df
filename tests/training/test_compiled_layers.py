"""Compiled layers train like others, and are not compiled anew for each batch; autocast keeps states in half precision."""

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import is_compiled_module
from torch._dynamo.testing import CompileCounter
from trl import get_peft_config

from tests.fixtures.batches import make_sample, pad, ragged_samples, tiny_model
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
from vividmed.models.layer_stack import compile_layers
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import Segmenter
from vividmed.training.adapters.groups import select_modules
from vividmed.training.adapters.peft import add_adapter
from vividmed.training.settings.model_arguments import ModelArguments

PROCESSOR = small_processor()


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    AcceleratorState._reset_state()  # it would keep the first trainer's settings
    yield
    torch.compiler.reset()


def adapted(dtype: torch.dtype):
    """A small model of a dtype with an adapter that is trained in float32."""
    model = small_model(PROCESSOR).to(dtype)
    arguments = ModelArguments(model_name_or_path="none", use_peft=True, lora_r=4)
    return add_adapter(model, get_peft_config(arguments), select_modules(model))


def test_training_is_the_same_with_compiled_layers(tmp_path):
    settings = {"activation_checkpointing": True, "max_steps": 2}
    # This backend traces as others do, and runs what it has traced.
    compiled = small_trainer(
        tmp_path / "compiled", torch_compile=True, torch_compile_backend="eager", **settings
    )
    compiled.train()
    assert not is_compiled_module(compiled.model_wrapped)  # its layers are
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    plain = small_trainer(tmp_path / "plain", **settings)
    plain.train()
    assert logged(compiled) == pytest.approx(logged(plain), abs=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_batches_of_other_shapes_need_no_new_compilation():
    model = tiny_model().train()
    counter = CompileCounter()
    compile_layers(model, backend=counter)
    samples = ragged_samples()
    counts = []
    for extra, batch in enumerate((samples, samples[:2], samples[1:], samples + samples[:2]), start=1):
        model(**pad(batch, extra=extra), use_cache=False).logits.sum().backward()
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts[-1] == counts[0]


def test_a_segmenter_by_itself_has_no_layers_to_compile():
    assert compile_layers(Segmenter(SegmenterConfig.tiny())) == 0


def test_evaluation_and_generation_run_as_before():
    model = tiny_model()
    counter = CompileCounter()
    compile_layers(model, backend=counter)
    model.eval().generate(**pad([make_sample(0)], "left"), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert counter.frame_count == 0


def test_adapters_take_their_input_as_autocast_does():
    model = adapted(torch.bfloat16)
    layer = model.get_base_model().model.layers[0].mlp.language_mlp.up_proj
    seen = []
    layer.lora_A["default"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    states = torch.randn(3, 32, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(states)
    outside = layer(states)
    assert seen == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(inside, outside, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_states_between_layers_have_the_precision_of_the_weights(dtype):
    model = adapted(dtype).get_base_model()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    seen = []
    for layer in (*model.model.layers, *model.model.vision.transformer.layers):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    rows = VividMedCollator(PROCESSOR, max_length=MAX_LENGTH)([make_row(0), make_row(3)])
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**{name: rows[name] for name in MODEL_INPUTS})
    assert set(seen) == {dtype}
