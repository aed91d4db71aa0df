"""Phrases are found from the states kept while writing as they are from reading the text a second time."""

import numpy as np
import pytest
import torch

from tests.fixtures.phrases import PhraseEveryFourTokens
from vividmed import VividMedConfig, VividMedForCausalLM, VividMedProcessor
from vividmed.models.phrases.written_states import WrittenStates
from vividmed.models.vision import VividMedVisionTower


@pytest.fixture(scope="module")
def processor() -> VividMedProcessor:
    return VividMedProcessor.tiny()


@pytest.fixture(scope="module")
def model(processor) -> VividMedForCausalLM:
    torch.manual_seed(1)
    return VividMedForCausalLM(VividMedConfig.tiny(len(processor.tokenizer), grounding=True)).eval()


@pytest.fixture(scope="module")
def batch(processor):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, size, dtype=np.uint8) for size in ((5, 40, 40), (30, 50))]
    conversation = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "In the<p> liver</p>."},
        {"role": "user", "content": "What is here?"},
    ]
    conversations = [conversation, conversation[:1], conversation[:1]]
    return processor(images=[*images, None], conversations=conversations, grounding=True)


class Passes:
    """Counts the passes through the vision tower."""

    def __init__(self, monkeypatch):
        self.count = 0
        forward = VividMedVisionTower.forward

        def counted(tower, images, *args):
            self.count += bool(images)
            return forward(tower, images, *args)

        monkeypatch.setattr(VividMedVisionTower, "forward", counted)


def write(model, processor, batch, seed=0, **options):
    torch.manual_seed(seed)
    options = {"max_new_tokens": 12, "logits_processor": [PhraseEveryFourTokens(model.config)]} | options
    return model.write_grounded(**batch, processor=processor, grounding="both", **options)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, True),
        ({"do_sample": True, "temperature": 1.5}, True),
        ({"cache_implementation": "static"}, True),
        ({"use_cache": False}, True),
        ({"num_beams": 2}, False),
    ],
    ids=["greedy", "sampling", "static cache", "no cache", "beams"],
)
def test_phrases_are_those_of_a_second_reading(model, processor, batch, monkeypatch, options, kept):
    passes = Passes(monkeypatch)
    once = write(model, processor, batch, **options)
    first = passes.count
    monkeypatch.setattr(WrittenStates, "of_tokens", lambda *_: None)
    twice = write(model, processor, batch, **options)
    # Without a cache, every step looks at the images.
    assert (first < passes.count - first) == kept
    for ours, theirs in zip(once.ids, twice.ids, strict=True):
        assert ours.tolist() == theirs.tolist()
    assert [len(prompts) for prompts in once.output.prompts[:2]] == [3, 3]
    for name in ("prompts", "masks", "boxes", "box_logits"):
        *ours, without_image = getattr(once.output, name)
        assert without_image is None
        for one, other in zip(ours, getattr(twice.output, name), strict=False):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_texts_that_end_early_keep_their_phrases(model, processor, batch, monkeypatch):
    # The first row ends after its second phrase, the others go on.
    class Ending(PhraseEveryFourTokens):
        def __call__(self, input_ids, scores):
            scores = super().__call__(input_ids, scores)
            if input_ids.shape[1] - self.prompt_length == 8:
                scores[0] = -torch.inf
                scores[0, processor.tokenizer.eos_token_id] = 0
            return scores

    options = {"eos_token_id": processor.tokenizer.eos_token_id, "pad_token_id": 0}
    once = write(model, processor, batch, logits_processor=[Ending(model.config)], **options)
    assert [len(prompts) for prompts in once.output.prompts[:2]] == [2, 3]
    monkeypatch.setattr(WrittenStates, "of_tokens", lambda *_: None)
    twice = write(model, processor, batch, logits_processor=[Ending(model.config)], **options)
    for ours, theirs in zip(once.output.prompts[:2], twice.output.prompts[:2], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)
