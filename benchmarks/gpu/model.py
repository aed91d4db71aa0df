"""Models with random weights on the device, and batches for them; nothing is downloaded or written."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from torch import nn

from vividmed import VividMedConfig, VividMedForCausalLM, VividMedProcessor
from vividmed.data.batches.collator import BatchSize, VividMedCollator
from vividmed.models.quantization import FULL_PRECISION_MODULES
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.tokenizer import load_tiny_tokenizer
from vividmed.training.adapters.groups import select_modules
from vividmed.training.adapters.peft import add_adapter
from vividmed.training.trainer import _NOT_FOR_THE_MODEL

RANK, ALPHA = 64, 8
_WORDS = "The heart is normal in size. "
_FULL_PRECISION = re.compile(rf"({'|'.join(FULL_PRECISION_MODULES)})(\.|$)")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of a run: those of the published model on a GPU, or its tiny twin on a CPU.

    Attributes:
        config: model without segmenters.
        processor: its processor.
        volume: (D, H, W) of each image.
        length: tokens per sample.
        batch: samples per step.
        new_tokens: tokens to decode.
        rounds: timed rounds per measurement.
        dtype: type of the weights, and of the matrix products.
    """

    config: VividMedConfig
    processor: VividMedProcessor
    volume: tuple[int, int, int]
    length: int
    batch: int
    new_tokens: int
    rounds: int
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def published(cls) -> "Scale":
        """The published 17B model with images of its full budget of 144 tokens."""
        return cls(
            config=VividMedConfig(),
            processor=VividMedProcessor(VividMedImageProcessor(), load_tiny_tokenizer()),
            volume=(64, 192, 192),
            length=1024,
            batch=8,
            new_tokens=64,
            rounds=3,
        )

    @classmethod
    def tiny(cls) -> "Scale":
        """A model of one layer in float32, since few CPUs are fast in bfloat16."""
        config = VividMedConfig.tiny()
        for part in (config.text_config, config.vision_config):
            part.num_hidden_layers = 1
        return cls(
            config=config,
            processor=VividMedProcessor.tiny(),
            volume=(4, 32, 32),
            length=96,
            batch=2,
            new_tokens=2,
            rounds=1,
            dtype=torch.float32,
        )


def build(scale: Scale, device: torch.device, *, attention: str = "sdpa") -> VividMedForCausalLM:
    """A model with random weights, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        return VividMedForCausalLM._from_config(
            scale.config, dtype=scale.dtype, attn_implementation=attention
        )


def quantize(model: VividMedForCausalLM, dtype: torch.dtype) -> None:
    """Replace linear layers by NF4 with double quantisation, as QLoRA loads them, one at a time."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or _FULL_PRECISION.match(name):
            continue
        layer = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        weight: Any = bnb.nn.Params4bit(
            module.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
        layer.weight = weight.to(module.weight.device)  # quantises
        if module.bias is not None:
            layer.bias = nn.Parameter(module.bias.data, requires_grad=False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    model.is_loaded_in_4bit = True


def adapt(model: VividMedForCausalLM) -> nn.Module:
    """Add the adapters of ``stages/configs/vlm_lora.yaml``, with activation checkpointing; trained weights are float32."""
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        use_rslora=True,
        lora_dropout=0.05,
        target_modules=None,
        task_type="CAUSAL_LM",
    )
    adapted = add_adapter(model, lora, select_modules(model))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.activation_checkpointing_enable({"use_reentrant": False})
    return adapted.train()


def rows(scale: Scale, lengths: list[int]) -> list[dict[str, Any]]:
    """Samples of about the given lengths in tokens: a random volume, a question and a long answer."""
    generator = np.random.default_rng(0)
    per_words = len(scale.processor.tokenizer(_WORDS, add_special_tokens=False)["input_ids"])
    image_tokens = scale.processor.num_image_tokens(scale.volume, np.diag([-1.0, -1.0, 1.0, 1.0]))
    samples: list[dict[str, Any]] = []
    for length in lengths:
        repeats = max(1, (length - image_tokens - 24) // per_words)
        array = generator.integers(0, 255, (1, *scale.volume), dtype=np.uint8)
        samples.append(
            {
                "id": str(len(samples)),
                "images": [MedicalImage(array, np.diag([-1.0, -1.0, 1.0, 1.0]), oriented=True)],
                "messages": [
                    {"role": "user", "content": "Report the findings."},
                    {"role": "assistant", "content": _WORDS * repeats},
                ],
            }
        )
    return samples


def collate(
    scale: Scale, samples: list[dict[str, Any]], device: torch.device, *, packed_length: int | None = None
) -> tuple[dict[str, Any], BatchSize]:
    """A batch on the device, padded, or packed into rows of a length."""
    collator = VividMedCollator(
        scale.processor,
        max_length=packed_length or scale.length,
        packing=packed_length is not None,
        truncation="answer",
        transform=lambda row: row,
    )
    batch = collator(samples)
    size = batch["size"]
    inputs = {name: value for name, value in batch.items() if name not in _NOT_FOR_THE_MODEL}
    moved = {
        name: [part.to(device) for part in value] if isinstance(value, list) else value.to(device)
        for name, value in inputs.items()
    }
    return moved, size
