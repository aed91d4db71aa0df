"""Attention between tokens and images without projecting the image equals attention with projections."""

import pytest
import torch
from torch import nn

from vividmed.models.segmenter import image_attention
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

PROMPTS = {
    "one image": [3],
    "images with one prompt each": [1, 1],
    "images with several prompts, and one without": [2, 0, 3],
    "images of two shapes": [2, 1, 1, 2],
    "no prompt": [0, 0],
}


class Wrapped(nn.Module):
    """A layer inside another, as adapters wrap it."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, states):
        return self.layer(states)


def build(name: str) -> Segmenter | InstanceSegmenter:
    torch.manual_seed(0)
    if name == "segmenter":
        return Segmenter(SegmenterConfig.tiny()).double()
    return InstanceSegmenter(InstanceSegmenterConfig.tiny()).double()


def run(model, counts):
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.rand(3, 4 if number % 4 < 2 else 8, 32, 32, generator=generator, dtype=torch.double)
        for number in range(len(counts))
    ]
    prompts = [
        torch.randn(count, model.config.hidden_size, generator=generator, dtype=torch.double)
        for count in counts
    ]
    output = model(images, prompts, [(4, 16, 16)] * len(images))
    found = output.masks if isinstance(model, Segmenter) else [*output.boxes, *output.logits]
    (sum(values.double().square().sum() for values in found) + output.graph_anchor).backward()
    return found, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("counts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", ["segmenter", "instance segmenter"])
def test_results_and_gradients_are_those_of_projected_images(name, counts, monkeypatch):
    model = build(name)
    found, gradients = run(model, counts)
    model.zero_grad()
    monkeypatch.setattr(image_attention, "_are_plain", lambda *_: False)
    expected, expected_gradients = run(model, counts)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for parameter, gradient in expected_gradients.items():
        assert (gradients[parameter] is None) == (gradient is None), parameter
        if gradient is not None:
            torch.testing.assert_close(gradients[parameter], gradient, atol=1e-5, rtol=1e-5, msg=parameter)


def test_wrapped_projections_are_called():
    model = build("segmenter")
    expected, _ = run(model, [2])
    attention = model.mask_decoder.transformer.final_attention
    attention.k_proj = Wrapped(attention.k_proj)
    found, _ = run(model, [2])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
