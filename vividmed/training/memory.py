"""Number of weights of a model, which of them are trained, and the memory they need."""

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
    """A table of weights by part of the model, and the memory that they need before activations.

    It counts one process with the whole model (sharding divides it): weights as they are stored, gradients of the
    trainable ones, and the two moments that AdamW keeps for each.
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
    precisions = {
        str(parameter.dtype).removeprefix("torch.")
        for parameter in model.parameters()
        if parameter.requires_grad
    }
    need = total.weight_bytes / _MIB + gradients + moments
    lines.append(
        f"trainable {100 * total.trainable / max(1, total.weights):.2f} % in {' and '.join(sorted(precisions))}; gradients {gradients:,.1f} MiB, "
        f"AdamW {moments:,.1f} MiB, with the weights {need:,.1f} MiB before activations"
    )
    return "\n".join(lines)


def _part(name: str) -> str:
    if "lora_" in name:
        return "adapters"
    return next((part for part, marks in _PARTS if any(mark in name for mark in marks)), "norms and others")


def _number_of_weights(parameter: nn.Parameter) -> int:
    """Number of weights that a parameter stands for; quantised ones are stored packed, with their shape."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
