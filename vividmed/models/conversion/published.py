"""Published adapters: LoRA of the language model and vision tower, and the segmenters of the grounding stages.

Such an adapter saves each trained layer under its published name. What the published training froze is not in it: the
random frequencies of the segmenters' position code above all, and the part of the instance segmenter that draws masks.
They come from the checkpoints in which the segmenters were aligned.
"""

import json
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vividmed.errors import VividMedError
from vividmed.models.configuration import one_line
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.conversion.building import PlannedModel, check_plan
from vividmed.models.conversion.cogvlm import TOKEN_ROWS, VISION, plan_vision_tensor
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.report import LoadReport
from vividmed.models.conversion.rules import ConversionPlan, Rule, Source, all_of
from vividmed.models.conversion.segvol import plan_segmenter, segmenter_prefix, segmenter_sizes
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig

PREFIX = "base_model.model."
ADAPTER_CONFIG = "adapter_config.json"
SEGMENTER_PREFIXES = {"segmenter": ("sam.",), "instance_segmenter": ("isam_model.", "isam.")}
"""Published names of our segmenters."""

_PROJECTION = "vg_proj."
_LORA = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_FREQUENCIES = "prompt_encoder.position_encoding.frequencies"
_SEGMENTER_ROOTS = (
    "image_encoder.",
    "prompt_encoder.",
    "mask_decoder.",
    "box_head.",
    "disc_head.",
    "text_encoder.",
)
_OPTIONS = {"segmenter": "--sam-checkpoint", "instance_segmenter": "--isam-checkpoint"}


@dataclass(frozen=True)
class PublishedAdapter:
    """A published adapter before it is converted.

    Attributes:
        folder: of the adapter.
        config: content of its adapter_config.json.
        reader: its tensors.
        names: name of each tensor in the published model, by its name in the file; those of LoRA excepted.
        low_rank: by the name of the weight that is adapted, the names of LoRA's A and B in the file.
    """

    folder: Path
    config: dict[str, Any]
    reader: CheckpointReader
    names: dict[str, str]
    low_rank: dict[str, dict[str, str]]

    @classmethod
    def open(cls, folder: Path) -> "PublishedAdapter":
        """Read the configuration and the names of an adapter's tensors.

        Raises:
            VividMedError: it is not a LoRA adapter, or uses a setting that published adapters do not use.
        """
        config = read_adapter_config(folder)
        files = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin")]
        file = next((path for path in files if path.is_file()), None)
        if file is None:
            raise VividMedError(
                f"{folder}: adapter_model.safetensors (or .bin) is missing; download the adapter again"
            )
        reader = CheckpointReader(file)
        names: dict[str, str] = {}
        low_rank: dict[str, dict[str, str]] = {}
        for name in reader:
            plain = name.removeprefix(PREFIX)
            if match := _LORA.fullmatch(plain):
                low_rank.setdefault(f"{match[1]}.weight", {})[match[2]] = name
            else:
                names[name] = re.sub(r"\.modules_to_save(?:\.default)?\.", ".", plain)
        for weight, parts in low_rank.items():
            if set(parts) != {"A", "B"}:
                raise VividMedError(
                    f"{file}: lora_{'B' if 'A' in parts else 'A'} of {weight} is missing; download the adapter again"
                )
        return cls(folder, config, reader, names, low_rank)

    @property
    def scaling(self) -> float:
        """What the product of B and A is multiplied by."""
        rank, alpha = self.config["r"], self.config["lora_alpha"]
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def segmenter_prefix(self, module: str) -> str | None:
        """What stands before the tensors of a segmenter of ours in the file; None if there are none."""
        for published in SEGMENTER_PREFIXES[module]:
            found = next((n for n, plain in self.names.items() if plain.startswith(published)), None)
            if found is not None:
                return found[: len(found) - len(self.names[found])] + published
        return None


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json and refuse what published adapters do not use.

    Raises:
        VividMedError: it is missing, damaged, or of another kind of adapter.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, rank, alpha = config["peft_type"], config["r"], config["lora_alpha"]
        usable = isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)
    except FileNotFoundError:
        raise VividMedError(f"{path}: is missing; give the folder of an adapter") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VividMedError(
            f"{path}: is not the configuration of a LoRA adapter ({one_line(error)}); download it again"
        ) from error
    if kind != "LORA" or not usable:
        raise VividMedError(f"{path}: peft_type {kind!r}, r {rank!r}: only LoRA adapters can be converted")
    for name in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layer_replication"):
        if config.get(name):
            raise VividMedError(
                f"{path}: {name} is set, which no published adapter uses; merge the adapter with vividmed merge"
            )
    return config


def merged_weight(
    weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, *, scaling: float
) -> torch.Tensor:
    """A weight with its low-rank update, computed in float32.

    Args:
        weight: (out, in) of the base model.
        down: (r, in), LoRA's A.
        up: (out, r), LoRA's B.
        scaling: factor of the update.

    Returns:
        (out, in) in the dtype of ``weight``.
    """
    update = up.float() @ down.float()
    return update.mul_(scaling).add_(weight).to(weight.dtype)


def plan_published_adapter(
    adapter: PublishedAdapter,
    base: Path,
    *,
    checkpoints: dict[str, Path],
    num_attention_heads: int | None = None,
    allow_partial: bool = False,
) -> PlannedModel:
    """Plan the model that a base model and a published adapter make together.

    Args:
        adapter: the adapter.
        base: folder of a VividMed model, such as ``vividmed build`` writes.
        checkpoints: file of the aligned ``segmenter`` and ``instance_segmenter``.
        num_attention_heads: of the segmenters' image encoders; by default those of the base model's segmenters, or
            heads of 64 channels.
        allow_partial: make missing tensors new and ignore unknown ones instead of refusing.

    Returns:
        The merged model. Its configuration computes rotary angles as the published code did.

    Raises:
        VividMedError: a file is damaged, does not belong to the others, or is needed and not given.
    """
    config = VividMedConfig.from_pretrained(base)
    config.text_config.rope_low_precision = True
    prefixes = {module: adapter.segmenter_prefix(module) for module in SEGMENTER_PREFIXES}
    readers = {module: CheckpointReader(path) for module, path in checkpoints.items()}
    for module, prefix in prefixes.items():
        if prefix is not None and module not in readers:
            raise VividMedError(_missing_checkpoint(adapter.folder, module))
        if prefix is None and module in readers and getattr(config, f"{module}_config") is not None:
            raise VividMedError(
                f"{_OPTIONS[module]}: {adapter.folder} does not train this segmenter and the base model has one; leave "
                "the file out"
            )
    _configure_segmenters(config, adapter, prefixes, readers, num_attention_heads)
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    plan = ConversionPlan(model, allow_partial=allow_partial)
    base_reader = CheckpointReader(base)
    replaced = {name for name in base_reader if _module(name) in readers}
    for source in all_of(base_reader):
        if source.name in replaced:
            plan.ignored.append(source)
        else:
            plan.copy(source, source.name)
    given = all_of(base_reader)
    for module, reader in readers.items():
        preferred = SEGMENTER_PREFIXES[module][0]
        prefix = segmenter_prefix(reader, preferred=preferred)
        plan_segmenter(plan, module, reader, prefix=prefix)
        given += [s for root in _SEGMENTER_ROOTS for s in all_of(reader, prefix + root)]
        if f"{module}.{_FREQUENCIES}" not in plan.rules:
            raise VividMedError(
                f"{reader.place}: lacks prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, without which the "
                f"segmenter is useless; give the checkpoint that the alignment saved as {_OPTIONS[module]}"
            )
    before = dict(plan.rules)
    _plan_adapter(plan, adapter, config, prefixes)
    plan.ignored += [
        source
        for name, rule in before.items()
        if plan.rules[name] is not rule
        for source in rule.sources
        if source not in plan.rules[name].sources
    ]
    given += all_of(adapter.reader)
    planned = PlannedModel(config=config, plan=plan, given=given, report=LoadReport())
    return check_plan(planned, what=f"adapter {adapter.folder} with its base model {base}")


def _missing_checkpoint(folder: Path, module: str) -> str:
    kind = "semantic" if module == "segmenter" else "instance"
    return (
        f"{folder}: contains the {kind} segmenter ({SEGMENTER_PREFIXES[module][0]}) without the random frequencies of "
        f"its position code, which the published training did not save; give {_OPTIONS[module]}, the checkpoint in "
        "which this segmenter was aligned"
    )


def _module(name: str) -> str:
    return name.partition(".")[0]


def _configure_segmenters(
    config: VividMedConfig,
    adapter: PublishedAdapter,
    prefixes: dict[str, str | None],
    readers: dict[str, CheckpointReader],
    num_attention_heads: int | None,
) -> None:
    """Give the configuration the segmenters that the checkpoints describe, with the adapter's number of queries."""
    classes = {"segmenter": SegmenterConfig, "instance_segmenter": InstanceSegmenterConfig}
    for module, reader in readers.items():
        prefix = segmenter_prefix(reader, preferred=SEGMENTER_PREFIXES[module][0])
        present = getattr(config, f"{module}_config")
        heads = num_attention_heads or (present.num_attention_heads if present is not None else None)
        sizes = segmenter_sizes(reader, prefix, num_attention_heads=heads)
        own = prefixes[module]
        source, name = (adapter.reader, own) if own is not None else (reader, prefix)
        tokens = f"{name}mask_decoder.mask_tokens.weight"
        if tokens not in source:
            source, tokens = reader, f"{prefix}mask_decoder.mask_tokens.weight"
        if tokens in source:
            sizes["num_instance_queries"] = len(source.shapes[tokens]) - 1
        sizes |= {
            "patch_size": config.vision_config.patch_size,
            "position_grid": config.vision_config.position_grid,
        }
        try:
            setattr(config, f"{module}_config", classes[module](**sizes))
        except ValueError as error:
            raise VividMedError(f"{reader.place}: no segmenter can be built ({one_line(error)})") from error


def _plan_adapter(
    plan: ConversionPlan,
    adapter: PublishedAdapter,
    config: VividMedConfig,
    prefixes: dict[str, str | None],
) -> None:
    """Let the adapter's tensors replace or update those planned so far."""
    reader = adapter.reader
    for name, plain in adapter.names.items():
        source = Source(reader, name)
        if plain.endswith("rotary_emb.inv_freq"):
            plan.ignored.append(source)
        elif plain.startswith(_PROJECTION):
            plan.copy(source, "grounding_projection." + plain.removeprefix(_PROJECTION))
        elif plain.startswith(VISION):
            plan_vision_tensor(plan, source, plain, config)
        else:
            if plain in TOKEN_ROWS:
                _check_rows(adapter, name, config)
            plan.copy(source, plain)
    for module, prefix in prefixes.items():
        if prefix is not None:
            plan_segmenter(plan, module, reader, prefix=prefix)
    for weight, parts in adapter.low_rank.items():
        rule = plan.rules.get(weight)
        if rule is not None and rule.make is None:
            low_rank = (Source(reader, parts["A"]), Source(reader, parts["B"]))
            plan.rules[weight] = Rule(
                (*rule.sources, *low_rank), partial(merged_weight, scaling=adapter.scaling)
            )


def _check_rows(adapter: PublishedAdapter, name: str, config: VividMedConfig) -> None:
    rows, needed = len(adapter.reader.shapes[name]), config.text_config.vocab_size
    if rows != needed:
        raise VividMedError(
            f"{adapter.folder}: {name} has {rows} rows but the base model has {needed} tokens; give the base model that "
            "was built with the tokenizer of the adapter"
        )
