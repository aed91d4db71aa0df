"""Generation: caches, batches and beams give what plain recomputation of one sample gives."""

import copy

import pytest
import torch
from transformers.cache_utils import QuantizedLayer

from tests.fixtures.batches import (
    FLAT,
    PHRASE_END,
    PHRASE_START,
    Sample,
    make_sample,
    pad,
    ragged_samples,
    tiny_model,
)
from vividmed import VividMedError, VividMedForCausalLM
from vividmed.models.generation import extend_position_ids

NEW_TOKENS = 12
GREEDY = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}


def continued(sample: Sample, ids: list[int]) -> dict:
    """The sample's batch with tokens appended, positions by the rule for phrase markers."""
    batch = pad([sample])
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([ids])], dim=1)
    batch["position_ids"] = extend_position_ids(
        batch["position_ids"], batch["input_ids"], PHRASE_START, PHRASE_END
    )
    for name, value in (("token_type_ids", 0), ("attention_mask", 1)):
        batch[name] = torch.nn.functional.pad(batch[name], (0, len(ids)), value=value)
    return batch


@torch.no_grad()
def greedy_by_recomputation(model, sample: Sample) -> list[int]:
    ids: list[int] = []
    for _ in range(NEW_TOKENS):
        batch = continued(sample, ids) if ids else pad([sample])
        ids.append(model(**batch, use_cache=False).logits[0, -1].argmax().item())
    return ids


@pytest.fixture(scope="module")
def model():
    model = tiny_model(seed=3)
    with torch.no_grad():
        model.lm_head.weight[[PHRASE_START, PHRASE_END]] *= 3  # so that texts have phrases
    return model


@pytest.fixture(scope="module")
def expected(model) -> list[list[int]]:
    return [greedy_by_recomputation(model, sample) for sample in ragged_samples()]


def new_tokens(output: torch.Tensor) -> list[list[int]]:
    return output[:, -NEW_TOKENS:].tolist()


def test_a_token_after_a_phrase_start_and_a_phrase_end_repeat_the_position():
    ids = torch.tensor([[1, 5, PHRASE_START, 6, 7, PHRASE_END, 8, PHRASE_START, PHRASE_END, 9]])
    positions = extend_position_ids(torch.tensor([[0, 1]]), ids, PHRASE_START, PHRASE_END)
    assert positions.tolist() == [[0, 1, 2, 2, 3, 3, 4, 5, 5, 6]]


@pytest.mark.parametrize("cache", ["dynamic", "static", None])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_generates_what_each_sample_generates_without_cache(model, expected, cache, side):
    options = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    output = model.generate(**pad(ragged_samples(), side, extra=1), **GREEDY, **options)
    assert new_tokens(output) == expected


def test_generation_meets_phrase_markers(model, expected):
    assert {PHRASE_START, PHRASE_END} & {token for row in expected for token in row}


def test_cached_logits_are_those_of_full_recomputation(model, expected):
    sample = ragged_samples()[2]
    output = model.generate(**pad([sample]), **GREEDY, output_logits=True, return_dict_in_generate=True)
    with torch.no_grad():
        full = model(**continued(sample, expected[2]), use_cache=False).logits[0]
    torch.testing.assert_close(torch.cat(output.logits), full[-NEW_TOKENS - 1 : -1], atol=1e-5, rtol=1e-5)


def test_beam_search_of_a_ragged_batch_gives_the_beams_of_each_sample(model):
    options = GREEDY | {"num_beams": 3, "num_return_sequences": 2}
    samples = ragged_samples()
    batched = new_tokens(model.generate(**pad(samples, "left"), **options))
    single = [beam for sample in samples for beam in new_tokens(model.generate(**pad([sample]), **options))]
    assert batched == single
    assert batched[0] != batched[1]


def test_several_sampled_sequences_keep_their_sample_s_images(model):
    samples = ragged_samples()
    torch.manual_seed(0)
    options = {"max_new_tokens": 1, "do_sample": True, "num_return_sequences": 3, "pad_token_id": 0}
    output = model.generate(
        **pad(samples, "left"), **options, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        for row, sample in enumerate(samples):
            logits = model(**pad([sample])).logits[0, -1]
            for copy in output.logits[0][3 * row : 3 * row + 3]:
                torch.testing.assert_close(copy, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 2}]
)
def test_a_black_and_a_white_image_give_different_texts(model, options):
    texts = []
    for value in (-2.0, 2.0):
        sample = make_sample(7, (FLAT,))
        sample.images = [torch.full_like(sample.images[0], value)]
        texts.append(new_tokens(model.generate(**pad([sample]), **GREEDY, **options)))
    assert texts[0] != texts[1]


def test_images_are_encoded_once_for_all_beams_and_steps(model, monkeypatch):
    calls = []
    forward = type(model.model.vision).forward
    monkeypatch.setattr(
        type(model.model.vision),
        "forward",
        lambda self, images, *args: calls.append(len(images)) or forward(self, images, *args),
    )
    model.generate(**pad(ragged_samples(), "left"), **GREEDY, num_beams=3)
    assert calls == [4]


# Default loads, and the library's other ways to generate


@pytest.fixture(scope="module")
def default_load(model, tmp_path_factory):
    """The same model as a user loads it: without naming an attention implementation."""
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return VividMedForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_every_cache_gives_the_same_text_on_a_default_load(default_load, expected, cache, side):
    batch = pad(ragged_samples(), side, extra=2)
    output = default_load.generate(**batch, **GREEDY, cache_implementation=cache)
    assert new_tokens(output) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["offloaded", "offloaded_static"])
def test_an_offloaded_cache_gives_the_text_of_a_dynamic_one(default_load, cache, side):
    if not torch.cuda.is_available():
        pytest.skip("offloaded caches need a CUDA device")
    model = copy.deepcopy(default_load).cuda()
    batch = {
        name: [part.cuda() for part in value] if isinstance(value, list) else value.cuda()
        for name, value in pad(ragged_samples(), side, extra=2).items()
    }
    dynamic, offloaded = (
        model.generate(**batch, **GREEDY, cache_implementation=name) for name in ("dynamic", cache)
    )
    assert new_tokens(offloaded) == new_tokens(dynamic)


class QuantisedLayer(QuantizedLayer):
    """Keeps keys and values as 16-bit integers: what a quantising backend does, without its package."""

    def _quantize(self, tensor, axis):
        scale = tensor.abs().amax().clamp(min=1e-9) / 32767
        return (tensor / scale).round().to(torch.int16), scale

    def _dequantize(self, quantised):
        values, scale = quantised
        return values.float() * scale


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_a_quantised_cache_gives_the_same_text_under_either_name(default_load, expected, name):
    from transformers import Cache

    layers = [QuantisedLayer(residual_length=4) for _ in default_load.model.layers]
    output = default_load.generate(
        **pad(ragged_samples(), "left", extra=1), **GREEDY, **{name: Cache(layers=layers)}
    )
    assert new_tokens(output) == expected


def test_assisted_decoding_gives_the_text_of_the_model_alone(model, expected):
    assistant = tiny_model(seed=5)
    for sample, text in zip(ragged_samples(), expected, strict=True):
        output = model.generate(**pad([sample]), **GREEDY, assistant_model=assistant)
        assert new_tokens(output) == [text]
        output = model.generate(**pad([sample]), **GREEDY, prompt_lookup_num_tokens=3)
        assert new_tokens(output) == [text]


def test_an_assistant_of_another_kind_is_refused(model):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    assistant = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
    with pytest.raises(VividMedError, match="give a VividMed model"):
        model.generate(**pad(ragged_samples()[:1]), **GREEDY, assistant_model=assistant)


@pytest.mark.parametrize("side", ["left", "right"])
def test_embeddings_generate_what_their_ids_generate(model, expected, side):
    batch = pad(ragged_samples(), side)
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
    assert new_tokens(model.generate(**batch, **GREEDY)) == expected


def test_prefill_in_chunks_gives_the_same_text_and_refuses_images(model):
    samples = [make_sample(4, (), 10), make_sample(5, (), 7)]
    batch = pad(samples, "left")
    whole = model.generate(**batch, **GREEDY)
    assert torch.equal(model.generate(**batch, **GREEDY, prefill_chunk_size=3), whole)
    with pytest.raises(VividMedError, match="prefill_chunk_size cannot split"):
        model.generate(**pad(ragged_samples(), "left"), **GREEDY, prefill_chunk_size=3)


def test_a_conversation_continues_from_its_cache(model, expected):
    sample = ragged_samples()[1]
    first = model.generate(**pad([sample]), **GREEDY, return_dict_in_generate=True)
    cut = GREEDY | {"max_new_tokens": 5}
    part = model.generate(**pad([sample]), **cut, return_dict_in_generate=True)
    cache = part.cache if hasattr(part, "cache") else part.past_key_values
    batch = continued(sample, part.sequences[0, -5:].tolist())
    for name in ("pixel_values", "patch_sizes", "pool_sizes"):
        del batch[name]
    rest = GREEDY | {"max_new_tokens": NEW_TOKENS - 5}
    output = model.generate(**batch, **rest, past_key_values=cache)
    assert output[0].tolist() == first.sequences[0].tolist()


def test_a_compiled_decode_step_gives_the_same_logits(model):
    from transformers import StaticCache

    sample = ragged_samples()[1]
    batch = pad([sample])
    length = batch["input_ids"].shape[1]
    step = {"input_ids": torch.tensor([[7]]), "position_ids": batch["position_ids"][:, -1:] + 1}
    compiled = torch.compile(
        model.forward, fullgraph=True, backend="aot_eager"
    )  # the graph, without code of C++
    logits = []
    for forward in (model.forward, compiled):
        cache = StaticCache(config=model.config, max_cache_len=length + 4)
        with torch.no_grad():
            model(**batch, past_key_values=cache)
            mask = torch.nn.functional.pad(batch["attention_mask"], (0, 1), value=1)
            logits.append(forward(**step, attention_mask=mask, past_key_values=cache).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
