"""Random samples with ragged images for a tiny model, alone, padded or packed."""

from dataclasses import dataclass

import torch

from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM

PHRASE_START, PHRASE_END = 60, 61


def tiny_config(**kwargs) -> VividMedConfig:
    """Small enough for a hundred forwards a second."""
    return VividMedConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": (4, 8, 8),
            "position_grid": (2, 3, 3),
        },
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "eos_token_id": None,
        },
        phrase_start_token_id=PHRASE_START,
        phrase_end_token_id=PHRASE_END,
        **kwargs,
    )


def tiny_model(seed: int = 0, attention: str = "sdpa") -> VividMedForCausalLM:
    """A random model with weights large enough that every part of it shows in the logits."""
    torch.manual_seed(seed)
    model = VividMedForCausalLM._from_config(tiny_config(), attn_implementation="sdpa")
    # Set past the library's check that a kernel of this name is installed, for stand-ins that tests register.
    model.config._attn_implementation_internal = attention
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15) if parameter.ndim > 1 else parameter.add_(
                0.1 * torch.randn_like(parameter)
            )
    return model.eval()


@dataclass
class Sample:
    """One sample: ids, types, positions, labels and weights (L,), and its images with patch and pool sizes."""

    text: dict[str, torch.Tensor]
    images: list[torch.Tensor]
    patch_sizes: list[tuple[int, int, int]]
    pool_sizes: list[tuple[int, int, int]]

    def __len__(self) -> int:
        return len(self.text["input_ids"])


FLAT = ((3, 1, 16, 24), (1, 8, 8), (1, 2, 1))
THIN = ((3, 4, 16, 16), (2, 8, 8), (1, 1, 2))
DEEP = ((3, 8, 16, 16), (4, 8, 8), (2, 2, 2))


def make_sample(seed: int, images: tuple = (), length: int = 9) -> Sample:
    """A sample with the given images, each (shape, patch size, pool size), and ``length`` text tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids, types, positions = [1], [0], [0]
    for number, (shape, patch, pool) in enumerate(images, start=1):
        patches = 1
        for size, p, s in zip(shape[1:], patch, pool, strict=True):
            patches *= size // (p * s)
        ids += [0] * (patches + 2)
        types += [number] * (patches + 2)
        first = positions[-1] + 1
        positions += [first, *[first + 1] * patches, first + 2]
    text = torch.randint(3, PHRASE_START, (length,), generator=generator).tolist()
    labels = [-100] * (len(ids) + length // 2) + text[length // 2 + 1 :] + [2]
    positions += list(range(positions[-1] + 1, positions[-1] + 1 + length))
    return Sample(
        text={
            "input_ids": torch.tensor(ids + text),
            "token_type_ids": torch.tensor(types + [0] * length),
            "position_ids": torch.tensor(positions),
            "labels": torch.tensor(labels),
            "label_weights": torch.rand(len(ids) + length, generator=generator) * 3,
        },
        images=[torch.rand(shape, generator=generator) for shape, _, _ in images],
        patch_sizes=[patch for _, patch, _ in images],
        pool_sizes=[pool for _, _, pool in images],
    )


def ragged_samples() -> list[Sample]:
    """2D, 3D, two images, and text alone, all of different lengths."""
    return [
        make_sample(1, (FLAT,), 7),
        make_sample(2, (DEEP,), 12),
        make_sample(3, (THIN, FLAT), 9),
        make_sample(4, (), 10),
    ]


def _image_inputs(samples: list[Sample]) -> dict:
    if not any(sample.images for sample in samples):
        return {}
    return {
        "pixel_values": [image for sample in samples for image in sample.images],
        "patch_sizes": torch.tensor([size for sample in samples for size in sample.patch_sizes]),
        "pool_sizes": torch.tensor([size for sample in samples for size in sample.pool_sizes]),
    }


def pad(samples: list[Sample], side: str = "right", extra: int = 0, labels: bool = False) -> dict:
    """A batch with padding on one side, ``extra`` columns more than needed."""
    length = max(map(len, samples)) + extra
    names = [name for name in samples[0].text if labels or not name.startswith("label")]
    batch = {}
    for name in names:
        fill = -100 if name == "labels" else 0
        rows = []
        for sample in samples:
            row = sample.text[name]
            padding = row.new_full((length - len(row),), fill)
            rows.append(torch.cat([row, padding] if side == "right" else [padding, row]))
        batch[name] = torch.stack(rows)
    ones = [torch.ones(len(sample), dtype=torch.long) for sample in samples]
    zeros = [torch.zeros(length - len(sample), dtype=torch.long) for sample in samples]
    pairs = zip(ones, zeros, strict=True)
    batch["attention_mask"] = torch.stack(
        [torch.cat([o, z] if side == "right" else [z, o]) for o, z in pairs]
    )
    return batch | _image_inputs(samples)


def pack(samples: list[Sample], extra: int = 3, labels: bool = False) -> dict:
    """One row that holds all samples, then ``extra`` columns of padding."""
    names = [name for name in samples[0].text if labels or not name.startswith("label")]
    batch = {}
    for name in names:
        row = torch.cat([sample.text[name] for sample in samples])
        batch[name] = torch.cat([row, row.new_full((extra,), -100 if name == "labels" else 0)])[None]
    numbers = [torch.full((len(sample),), number) for number, sample in enumerate(samples, start=1)]
    batch["attention_mask"] = torch.cat([*numbers, torch.zeros(extra, dtype=torch.long)])[None]
    return batch | _image_inputs(samples)
