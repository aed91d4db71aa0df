"""How many weights a model has, which of them train, and the memory they take."""

from dataclasses import dataclass

from torch import nn

_PARTS = (
    ("vision tower", ("model.vision.",)),
    ("vision experts", (".vision_expert_", ".vision_mlp.")),
    ("language experts", (".language_expert_", ".language_mlp.")),
    ("embeddings and head", ("model.embed_tokens.", "lm_head.")),
    ("segmenters", ("segmenter.", "grounding_projection.")),
)
_MIB = 2**20


@dataclass
class _Count:
    weights: int = 0
    trainable: int = 0
    weight_bytes: int = 0
    trainable_bytes: int = 0


def memory_summary(model: nn.Module) -> str:
    """A table of weights by part of the model, and what they need in memory before activations.

    Counted for one process that holds the whole model (sharding divides it): weights as stored, gradients of the
    trainable ones, and the two moments that AdamW keeps of each.
    """
    counts = {name: _Count() for name, _ in (*_PARTS, ("norms and others", ()), ("adapters", ()))}
    for name, parameter in model.named_parameters():
        count = counts[_part(name)]
        number = _number_of_weights(parameter)
        size = parameter.numel() * parameter.element_size()
        count.weights += number
        count.weight_bytes += size
        if parameter.requires_grad:
            count.trainable += number
            count.trainable_bytes += size
    rows = [("part", "weights", "trainable", "memory")]
    total = _Count()
    for name, count in counts.items():
        if count.weights:
            rows.append(
                (name, f"{count.weights:,}", f"{count.trainable:,}", f"{count.weight_bytes / _MIB:,.1f} MiB")
            )
        for field in vars(total):
            setattr(total, field, getattr(total, field) + getattr(count, field))
    rows.append(
        ("all", f"{total.weights:,}", f"{total.trainable:,}", f"{total.weight_bytes / _MIB:,.1f} MiB")
    )
    lines = [f"{row[0]:<20}{row[1]:>16}{row[2]:>16}{row[3]:>16}" for row in rows]
    gradients, moments = total.trainable_bytes / _MIB, 2 * total.trainable_bytes / _MIB
    need = total.weight_bytes / _MIB + gradients + moments
    lines.append(
        f"trainable {100 * total.trainable / max(1, total.weights):.2f} %; gradients {gradients:,.1f} MiB, "
        f"AdamW {moments:,.1f} MiB, with the weights {need:,.1f} MiB before activations"
    )
    return "\n".join(lines)


def _part(name: str) -> str:
    if "lora_" in name:
        return "adapters"
    return next((part for part, marks in _PARTS if any(mark in name for mark in marks)), "norms and others")


def _number_of_weights(parameter: nn.Parameter) -> int:
    """Quantised weights are stored packed; their state remembers the shape they stand for."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
