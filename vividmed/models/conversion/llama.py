"""Language models of the Llama type as VividMed's decoder: the same text, and copies of their weights as vision experts.

CogVLM started in the same way: its vision experts were copies of Vicuna's layers.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from vividmed.errors import VividMedError
from vividmed.models.configuration import UNBUILDABLE, one_line
from vividmed.models.configuration_vividmed import VividMedTextConfig
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.rules import ConversionPlan, Source, all_of, concatenated, fitted_rows


def _llama(config: PreTrainedConfig) -> dict[str, Any]:
    return {
        "attention_bias": config.attention_bias,
        "attention_output_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }


def _mistral(config: PreTrainedConfig) -> dict[str, Any]:
    return {"attention_window": config.sliding_window}


def _qwen2(config: PreTrainedConfig) -> dict[str, Any]:
    return {"attention_bias": True, **_qwen_window(config)}


def _qwen3(config: PreTrainedConfig) -> dict[str, Any]:
    bias = config.attention_bias
    return {
        "attention_bias": bias,
        "attention_output_bias": bias,
        "query_key_norm": True,
        **_qwen_window(config),
    }


def _qwen_window(config: PreTrainedConfig) -> dict[str, Any]:
    if config.sliding_window is None:
        return {}
    windowed = [kind == "sliding_attention" for kind in config.layer_types]
    first = windowed.index(True) if any(windowed) else len(windowed)
    if not all(windowed[first:]):
        raise VividMedError(
            "layer_types mixes layers with and without a sliding window; only a first part without one is supported"
        )
    return {"attention_window": config.sliding_window, "attention_window_first_layer": first}


FAMILIES: dict[str, Callable[[PreTrainedConfig], dict[str, Any]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
"""Settings that a family has besides those that all share, by its model type in transformers.

SmolLM2, Vicuna and TinyLlama are of the type llama.
"""

_SHARED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_NORMS = {"self_attn.q_norm.weight": "query_norm", "self_attn.k_norm.weight": "key_norm"}


def text_config_from_llm(
    folder: str | Path, *, vocab_size: int | None = None
) -> tuple[VividMedTextConfig, bool]:
    """Read the configuration of a language model.

    Args:
        folder: of the language model.
        vocab_size: number of tokens of the new model; by default that of the language model.

    Returns:
        Configuration of the decoder, and whether its head is tied to its embeddings.

    Raises:
        VividMedError: there is no configuration, or one of another architecture.
    """
    path = Path(folder) / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise VividMedError(f"{path}: is missing; give the folder of a language model") from None
    except (OSError, ValueError, AttributeError) as error:
        raise VividMedError(f"{path}: cannot be read ({one_line(error)}); download it again") from error
    if model_type not in FAMILIES:
        raise VividMedError(
            f"{path}: model_type is {model_type!r}; language models of the types {', '.join(FAMILIES)} are supported "
            "(SmolLM2, Vicuna and TinyLlama are of the type llama)"
        )
    try:
        config = AutoConfig.from_pretrained(folder)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        text = VividMedTextConfig(
            vocab_size=vocab_size or config.vocab_size,
            head_dim=head_dim,
            rope_parameters=dict(config.rope_parameters),
            **{name: getattr(config, name) for name in _SHARED},
            **FAMILIES[model_type](config),
        )
    except VividMedError as error:
        raise VividMedError(f"{path}: {error}") from error
    except (*UNBUILDABLE, OSError) as error:
        raise VividMedError(
            f"{path}: no decoder can be built from it ({one_line(error)}); give an unchanged checkpoint"
        ) from error
    return text, bool(config.tie_word_embeddings)


def plan_language_model(plan: ConversionPlan, reader: CheckpointReader, config: Any) -> None:
    """Plan the decoder, its vision experts and the language head from a language model.

    Args:
        plan: gets the rules.
        reader: checkpoint under the names of Llama.
        config: configuration of the model to make, a ``VividMedConfig``.
    """
    rows = fitted_rows(config.text_config.vocab_size)
    fused: dict[str, dict[str, Source]] = {}
    for source in all_of(reader):
        name = source.name
        layer = _LAYER.fullmatch(name)
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings):
            plan.ignored.append(source)  # computed, or the embeddings again
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            plan.add(name, [source], rows)
        elif layer is None:
            plan.copy(source, name)
        else:
            _plan_layer_tensor(plan, source, f"model.layers.{layer[1]}.", layer[2], fused)
    for union, parts in fused.items():
        if set(parts) == set(_PROJECTIONS):
            for expert in ("language", "vision"):
                full = union.replace("EXPERT", expert)
                plan.add(full, [parts[part] for part in _PROJECTIONS], concatenated)


def _plan_layer_tensor(
    plan: ConversionPlan, source: Source, layer: str, name: str, fused: dict[str, dict[str, Source]]
) -> None:
    """Plan one tensor of a layer; query, key and value are collected in ``fused`` by the name of their union."""
    if name in _NORMS:
        plan.copy(source, f"{layer}self_attn.{_NORMS[name]}.weight")
        return
    part, _, kind = name.rpartition(".")
    room, _, projection = part.partition(".")
    if room == "self_attn" and projection in _PROJECTIONS:
        union = f"{layer}self_attn.EXPERT_expert_query_key_value.{kind}"
        if union.replace("EXPERT", "language") in plan.expected:
            fused.setdefault(union, {})[projection] = source
    elif room == "self_attn" and projection == "o_proj":
        for expert in ("language", "vision"):
            plan.copy(source, f"{layer}self_attn.{expert}_expert_dense.{kind}")
    elif room == "mlp":
        for expert in ("language", "vision"):
            plan.copy(source, f"{layer}mlp.{expert}_mlp.{projection}.{kind}")
    else:
        plan.copy(source, layer + name)
