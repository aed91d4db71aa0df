"""The cache's layers: equal to the library's after every operation, without copying at every token."""

from copy import deepcopy

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from tests.fixtures.batches import pad, ragged_samples, tiny_model
from vividmed.models.cache import CACHE_NAME, GrowingLayer, growing


def tokens(number, seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, 3, number, 4, generator=generator) for _ in range(2))


OPERATIONS = {
    "crop": lambda layer: layer.crop(-2),
    "reorder": lambda layer: layer.reorder_cache(torch.tensor([1, 1])),
    "select": lambda layer: layer.batch_select_indices(torch.tensor([1, 0])),
    "reset": lambda layer: layer.reset(),
    "nothing": lambda layer: None,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("prompt", [1, 5, 200])
def test_a_layer_contains_what_the_librarys_does(operation, prompt):
    layers = GrowingLayer(), DynamicLayer()
    with torch.no_grad():
        for seed, number in enumerate((prompt, 1, 1, 3, 1)):
            ours, theirs = (layer.update(*tokens(number, seed)) for layer in layers)
            assert all(map(torch.equal, ours, theirs))
            if seed == 2:
                for layer in layers:
                    OPERATIONS[operation](layer)
    assert layers[0].get_seq_length() == layers[1].get_seq_length()


@torch.no_grad()
def test_new_tokens_are_written_behind_the_old_ones():
    layer = GrowingLayer()
    first = layer.update(*tokens(20, 0))[0].data_ptr()
    assert {layer.update(*tokens(1, seed))[0].data_ptr() for seed in range(20)} == {first}
    for seed in range(100):
        layer.update(*tokens(1, seed))
    assert layer.get_seq_length() == 140


def test_a_copy_goes_its_own_way_and_modes_may_change():
    with torch.inference_mode():
        layer = GrowingLayer()
        layer.update(*tokens(5, 0))
    with torch.no_grad():
        layer.update(*tokens(1, 1))
        copy = deepcopy(layer)
        kept = copy.update(*tokens(1, 2))[0].clone()
        layer.update(*tokens(1, 3))
    assert torch.equal(copy.keys, kept)
    key, value = (part.requires_grad_() for part in tokens(1, 4))
    layer.update(key, value)[0].sum().backward()
    assert torch.equal(key.grad, torch.ones_like(key))
    with torch.no_grad():
        assert layer.update(*tokens(1, 5))[0].shape[-2] == 9


@torch.no_grad()
def test_only_empty_dynamic_caches_are_changed():
    filled = DynamicCache()
    filled.update(*tokens(2, 0), 0)
    assert type(growing(filled).layers[0]) is DynamicLayer
    model = tiny_model(seed=3).eval()
    for cache in (None, DynamicCache(), DynamicCache(config=model.config)):
        output = model(**pad(ragged_samples()), past_key_values=cache, use_cache=True)
        assert {type(layer) for layer in output[CACHE_NAME].layers} == {GrowingLayer}
