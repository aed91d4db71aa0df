"""The golden folder's tiny model, built from its description."""

from tests.parity.harness import Golden
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM

GROUNDING_PREFIXES = ("sam.", "isam_model.", "vg_proj.")


def published_config(golden: Golden) -> VividMedConfig:
    """The language model and vision tower that ``golden.json`` describes."""
    lm, vision = golden.config["lm"], golden.config["vision"]
    ids = golden.special_token_ids
    return VividMedConfig(
        vision_config={
            "hidden_size": vision["hidden_size"],
            "intermediate_size": vision["intermediate_size"],
            "num_hidden_layers": vision["num_hidden_layers"],
            "num_attention_heads": vision["num_heads"],
            "layer_norm_eps": vision["layer_norm_eps"],
            "patch_size": vision["patch_size"],
            "position_grid": vision["pos_embed_shape"],
        },
        text_config={
            "vocab_size": lm["base_vocab_size"] + len(ids),
            "hidden_size": lm["hidden_size"],
            "intermediate_size": lm["intermediate_size"],
            "num_hidden_layers": lm["num_hidden_layers"],
            "num_attention_heads": lm["num_attention_heads"],
            "rms_norm_eps": lm["rms_norm_eps"],
        },
        phrase_start_token_id=ids["bop"],
        phrase_end_token_id=ids["eop"],
    )


def published_model(golden: Golden) -> VividMedForCausalLM:
    """The same with its published weights, which load by name, in eval mode."""
    model = VividMedForCausalLM(published_config(golden)).eval()
    weights = {
        name: value for name, value in golden.weights.items() if not name.startswith(GROUNDING_PREFIXES)
    }
    incompatible = model.load_state_dict(weights, strict=False)
    unexpected = [name for name in incompatible.unexpected_keys if not name.endswith("rotary_emb.inv_freq")]
    if incompatible.missing_keys or unexpected:
        raise KeyError(
            f"published weights do not fit: {incompatible.missing_keys} missing, {unexpected} unexpected"
        )
    return model
