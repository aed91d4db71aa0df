"""``vividmed build --llm``: any language model of the Llama type becomes a VividMed that writes the same text."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.others_weights import LANGUAGE_MODELS, save_cogvlm, save_language_model
from vividmed import VividMedForCausalLM, VividMedProcessor
from vividmed.cli.main import main
from vividmed.models.conversion.cogvlm import load_cogvlm


@pytest.fixture(scope="module", params=LANGUAGE_MODELS)
def built(request, tmp_path_factory):
    """A language model, and the model and processor that the command builds from it."""
    folder = tmp_path_factory.mktemp("llm")
    original = save_language_model(folder / "llm", request.param, max_shard_size="20KB")
    assert main(["build", "--llm", str(folder / "llm"), "--output", str(folder / "base")]) == 0
    model = VividMedForCausalLM.from_pretrained(folder / "base").eval()
    return original, model, VividMedProcessor.from_pretrained(folder / "base"), folder


@torch.no_grad()
def test_text_has_the_logits_of_the_language_model(built):
    original, model, _, _ = built
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    ours = model(input_ids=ids).logits[..., :300]
    theirs = original(input_ids=ids).logits
    assert (ours - theirs).abs().max() < 1e-5
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones_like(ids)], dim=1)
    after = model(input_ids=padded, attention_mask=mask).logits[:, 3:, :300]
    assert (after - ours).abs().max() < 1e-4


@torch.no_grad()
def test_late_positions_have_the_angles_of_the_language_model(built):
    # A last bit of the frequencies would not show at early ones.
    original, model, _, _ = built
    late = torch.arange(4000, 4064)[None]
    states = torch.zeros(1)
    ours = model.model.rotary_emb(late, torch.float32)
    for found, expected in zip(ours, original.model.rotary_emb(states, late), strict=True):
        # Ours carries the sign of the rotation in the sine.
        torch.testing.assert_close(found[:, 0].abs(), expected.abs(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_greedy_text_is_the_language_models(built, cache):
    original, model, _, _ = built
    ids = torch.randint(0, 256, (1, 10), generator=torch.Generator().manual_seed(2))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    theirs = original.generate(ids, **options)
    ours = model.generate(ids, cache_implementation=cache, **options)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_vision_tower_comes_from_a_cogvlm(tmp_path, form):
    save_language_model(tmp_path / "llm", "smollm2")
    cogvlm = save_cogvlm(tmp_path / "cogvlm", form=form, shards=2, dtype=torch.bfloat16)
    sizes = {"patch_size": (4, 8, 8), "position_grid": (4, 6, 6)}
    options = [str(word) for name, size in sizes.items() for word in (f"--{name.replace('_', '-')}", *size)]
    parts = ["--llm", str(tmp_path / "llm"), "--vision", str(cogvlm), "--output", str(tmp_path / "base")]
    assert main(["build", *parts, *options]) == 0
    expected, _ = load_cogvlm(cogvlm, **sizes, dtype=torch.bfloat16)
    built = load_file(tmp_path / "base" / "model.safetensors")
    report = json.loads((tmp_path / "base" / "conversion_report.json").read_text())
    # The projection and the tokens around an image have the width of the decoder.
    new = ("linear_proj.", "boi", "eoi")
    for name, tensor in expected.model.vision.state_dict().items():
        full = f"model.vision.{name}"
        assert (full in report["new"]) == name.startswith(new), name
        if not name.startswith(new):
            assert torch.equal(built[full].to(tensor.dtype), tensor), name
