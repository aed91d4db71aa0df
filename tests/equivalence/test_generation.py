"""Generation: caches, batches and beams give what plain recomputation of one sample gives."""

import pytest
import torch

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


@pytest.mark.slow
def test_a_compiled_decode_step_gives_the_same_logits(model):
    from transformers import StaticCache

    sample = ragged_samples()[1]
    batch = pad([sample])
    length = batch["input_ids"].shape[1]
    step = {"input_ids": torch.tensor([[7]]), "position_ids": batch["position_ids"][:, -1:] + 1}
    compiled = torch.compile(model.forward, fullgraph=True)
    logits = []
    for forward in (model.forward, compiled):
        cache = StaticCache(config=model.config, max_cache_len=length + 4)
        with torch.no_grad():
            model(**batch, past_key_values=cache)
            mask = torch.nn.functional.pad(batch["attention_mask"], (0, 1), value=1)
            logits.append(forward(**step, attention_mask=mask, past_key_values=cache).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
