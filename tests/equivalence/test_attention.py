"""Attention implementations agree, the published one written out among them."""

from itertools import pairwise, product

import pytest
import torch
from transformers import AttentionInterface

from tests.fixtures.batches import pack, pad, ragged_samples, tiny_model


def flash_reference(
    module, query, key, value, attention_mask, scaling, cu_seq_lens_q, is_causal=None, **kwargs
):
    """What flash attention computes for sequences laid end to end, one after the other."""
    assert attention_mask is None
    assert query.shape[0] == 1
    causal = module.is_causal if is_causal is None else is_causal
    outputs = []
    bounds = cu_seq_lens_q.tolist()
    for start, stop in pairwise(bounds):
        q, k, v = (states[:, :, start:stop] for states in (query, key, value))
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling)
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register("flash_reference", flash_reference)


@pytest.mark.parametrize(
    ("attention", "layout"),
    [
        *product(["eager", "flash_reference"], ["left", "right", "packed"]),
        ("flex_attention", "packed"),  # masks all there is to mask
    ],
)
@torch.no_grad()
def test_every_implementation_gives_the_logits_of_sdpa(attention: str, layout: str):
    samples = ragged_samples()
    batch = pack(samples) if layout == "packed" else pad(samples, layout, extra=2)
    real = batch["attention_mask"] > 0
    expected = tiny_model(attention="sdpa")(**batch).logits
    with torch.compiler.set_stance(
        "force_eager"
    ):  # flex attention would be compiled, which takes half a minute
        actual = tiny_model(attention=attention)(**batch, use_cache=False).logits
    torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_eager_returns_attention_weights_that_respect_causality_and_padding():
    batch = pad(ragged_samples()[:2])
    attentions = tiny_model(attention="eager")(**batch, output_attentions=True).attentions
    real = batch["attention_mask"].bool()
    for weights in attentions:
        assert weights.triu(1).abs().max() == 0
        assert (weights.sum(-1)[real[:, None].expand_as(weights[..., 0])] - 1).abs().max() < 1e-5
        assert weights[~real[:, None, None].expand_as(weights)].view(-1)[: len(weights)].abs().max() == 0
