"""The published 17B on the meta device: every tensor that CogVLM's naming has is accounted for, in its true shape."""

import pytest
import torch

from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM
from vividmed.models.conversion.cogvlm import plan_cogvlm
from vividmed.models.conversion.rules import ConversionPlan, all_of


class Names:
    """The tensors of a checkpoint that is not there: names and shapes."""

    place = "cogvlm"

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = {
            name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()
        }

    def __iter__(self):
        return iter(self.shapes)

    def position(self, name: str) -> int:
        return 0


def cogvlm_shapes(layers: int = 32, vision_layers: int = 63) -> dict[str, tuple[int, ...]]:
    """Names and shapes of CogVLM-chat: Vicuna 7B with vision experts, EVA2-CLIP-E for 490 pixels in patches of 14."""
    size, inner, vision, vision_inner = 4096, 11008, 1792, 15360
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (32000, size),
        "model.norm.weight": (size,),
        "lm_head.weight": (32000, size),
        "model.vision.boi": (1, 1, size),
        "model.vision.eoi": (1, 1, size),
        "model.vision.patch_embedding.proj.weight": (vision, 3, 14, 14),
        "model.vision.patch_embedding.proj.bias": (vision,),
        "model.vision.patch_embedding.cls_embedding": (1, vision),
        "model.vision.patch_embedding.position_embedding.weight": (35 * 35 + 1, vision),
        "model.vision.linear_proj.linear_proj.weight": (size, vision),
        "model.vision.linear_proj.norm1.weight": (size,),
        "model.vision.linear_proj.norm1.bias": (size,),
        "model.vision.linear_proj.dense_h_to_4h.weight": (inner, size),
        "model.vision.linear_proj.gate_proj.weight": (inner, size),
        "model.vision.linear_proj.dense_4h_to_h.weight": (size, inner),
    }
    for index in range(layers):
        layer = f"model.layers.{index}."
        shapes[f"{layer}self_attn.rotary_emb.inv_freq"] = (64,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{norm}.weight"] = (size,)
        for expert in ("vision", "language"):
            shapes[f"{layer}self_attn.{expert}_expert_query_key_value.weight"] = (3 * size, size)
            shapes[f"{layer}self_attn.{expert}_expert_dense.weight"] = (size, size)
            for name, shape in (("gate", (inner, size)), ("up", (inner, size)), ("down", (size, inner))):
                shapes[f"{layer}mlp.{expert}_mlp.{name}_proj.weight"] = shape
    for index in range(vision_layers):
        layer = f"model.vision.transformer.layers.{index}."
        linears = {
            "attention.query_key_value": (3 * vision, vision),
            "attention.dense": (vision, vision),
            "mlp.fc1": (vision_inner, vision),
            "mlp.fc2": (vision, vision_inner),
        }
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{layer}{norm}.weight": (vision,), f"{layer}{norm}.bias": (vision,)}
    return shapes


def test_every_tensor_of_the_true_model_is_accounted_for():
    config = VividMedConfig.preset("17b")
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    reader = Names(cogvlm_shapes())
    plan = ConversionPlan(model)
    plan_cogvlm(plan, reader, config)
    report = plan.report(all_of(reader))
    assert report.missing == report.unexpected == report.initialized == []
    assert set(plan.rules) == set(model.state_dict())
    assert all(name.endswith("rotary_emb.inv_freq") for name in report.dropped)
    assert len(report.dropped) == 32
    assert sorted(report.converted) == sorted(
        [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.vision.patch_embedding.proj.weight",
            "model.vision.patch_embedding.cls_embedding.weight",
            "model.vision.patch_embedding.cls_pos_embed.weight",
            "model.vision.patch_embedding.position_embedding.weight",
        ]
    )
    plan.check_shapes()
    assert 17.6e9 < sum(tensor.numel() for tensor in model.parameters()) < 17.7e9


@pytest.mark.parametrize(("name", "weights"), [("3b", 3.1e9), ("1b", 1.0e9), ("tiny", 2.9e6)])
def test_presets_have_the_sizes_of_their_names(name, weights):
    config = VividMedConfig.preset(name, grounding=True)
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    grounding = ("segmenter.", "instance_segmenter.", "grounding_projection.")
    counted = sum(
        tensor.numel() for name, tensor in model.named_parameters() if not name.startswith(grounding)
    )
    assert counted == pytest.approx(weights, rel=0.06)
    assert model.segmenter is not None
    assert config.phrase_end_token_id == config.text_config.vocab_size - 3


def test_an_unknown_preset_is_refused():
    with pytest.raises(VividMedError, match="preset '7b' is unknown; use one of 17b, 3b, 1b, tiny"):
        VividMedConfig.preset("7b")
