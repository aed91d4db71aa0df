"""Floating point operations of a training step, and the peak rates of devices."""

import math
from typing import Any

import torch

from vividmed.data.batches.collator import BatchSize
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig

# Dense matrix throughput in bfloat16 without sparsity, operations per second, from the makers' data sheets.
# More specific names come before their prefixes.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A6000": 155e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Peak rate of a device in bfloat16 operations per second; None where it is not known, as for every CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)


class StepCost:
    """Estimates the operations of forward and backward passes from the numbers of weights that act on each token.

    A token of the decoder meets one expert only, a label the language head, a patch the vision tower. Each weight counts
    as two operations forward and four backward (frozen weights too, as is usual for utilisation). Attention scores and
    sums over the mean length are added; embedding look-ups and norms are left out.
    """

    def __init__(self, config: VividMedConfig):
        text: Any = config.text_config
        self._per_token = text.num_hidden_layers * (
            4 * text.hidden_size**2 + 3 * text.hidden_size * text.intermediate_size
        )
        self._per_label = text.hidden_size * text.vocab_size
        self._attention = text.num_hidden_layers * text.hidden_size
        vision: Any = config.vision_config
        kernel = vision.num_channels * math.prod(vision.patch_size) * vision.hidden_size
        self._per_patch = kernel + vision.num_hidden_layers * (
            4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        )

    def flops(self, size: BatchSize) -> float:
        """Operations of one forward and backward pass over a batch."""
        mean_length = size.tokens / max(1, size.samples)
        weights = (
            size.tokens * self._per_token
            + size.supervised_tokens * self._per_label
            + size.patches * self._per_patch
        )
        return 6.0 * weights + 12.0 * size.tokens * mean_length * self._attention


class SegmenterCost:
    """Like :class:`StepCost` for a segmenter that is trained without a language model; its small decoder is left out."""

    def __init__(self, config: SegmenterConfig):
        kernel = config.num_channels * math.prod(config.patch_size) * config.hidden_size
        layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
        self._per_patch = kernel + config.num_hidden_layers * layer
        self._attention = config.num_hidden_layers * config.hidden_size

    def flops(self, size: BatchSize) -> float:
        """Operations of one forward and backward pass over a batch."""
        mean_patches = size.patches / max(1, size.samples)
        return size.patches * (6.0 * self._per_patch + 12.0 * mean_patches * self._attention)


def step_cost(config: Any) -> StepCost | SegmenterCost:
    """Cost of a step of a model; segmenters of a language model are left out."""
    return SegmenterCost(config) if isinstance(config, SegmenterConfig) else StepCost(config)
