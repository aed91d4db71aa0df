"""Configuration of VividMed: a 3D vision tower, a decoder with vision experts and, optionally, segmenters."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from vividmed.errors import VividMedError
from vividmed.models.configuration import CheckedConfig
from vividmed.models.phrases.forms import check_presence_thresholds, check_target_forms
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
"""Scalings of rotary positions, by their names in transformers."""


@strict
class VividMedVisionConfig(CheckedConfig):
    """Configuration of the EVA2-CLIP tower on 3D patches; the defaults are those of the published 17B model.

    ``patch_size`` is the kernel of the patch convolution and ``position_grid`` the shape of the learned grid of
    position embeddings, both (z, y, x). The patch that an image is cut into may be thinner in z (see
    :class:`~vividmed.models.depth.DepthAdaptiveConv3d`).
    """

    model_type = "vividmed_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1792
    intermediate_size: int = 15360
    num_hidden_layers: int = 63
    num_attention_heads: int = 16
    num_channels: int = 3
    patch_size: list[int] | tuple[int, ...] = (16, 16, 16)
    position_grid: list[int] | tuple[int, ...] = (8, 32, 32)
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any):
        self.patch_size = tuple(self.patch_size)
        self.position_grid = tuple(self.position_grid)
        super().__post_init__(**kwargs)


@strict
class VividMedTextConfig(CheckedConfig):
    """Configuration of the decoder: a language model of the Llama type with a second set of weights for image tokens.

    The defaults are those of the published model, whose language model is Vicuna 7B. Other language models differ in:

    - ``num_key_value_heads`` (grouped-query attention; None for as many as there are heads) and ``head_dim`` (None for
      ``hidden_size / num_attention_heads``)
    - ``attention_bias`` (of query, key and value), ``attention_output_bias`` and ``mlp_bias``
    - ``query_key_norm``, a root mean square norm of each query and key
    - ``rope_parameters``, the base and the scaling of rotary positions, as transformers writes them
    - ``attention_window``, the number of tokens that a token sees, itself included, in the layers from
      ``attention_window_first_layer`` on; None for all

    ``rope_low_precision`` computes rotary angles in the model's dtype as the published code did, which rounds
    positions above 256 in bfloat16. Use it only for weights that were trained that way; see docs/differences.md.
    """

    model_type = "vividmed_text"
    base_config_key = "text_config"
    # Read by transformers where it fills in rope_parameters.
    default_theta = 10000.0

    vocab_size: int = 32008
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    rope_parameters: dict[str, Any] | None = None
    rope_low_precision: bool = False
    attention_bias: bool = False
    attention_output_bias: bool = False
    attention_window: int | None = None
    attention_window_first_layer: int = 0
    query_key_norm: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs: Any):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raise ValueError if heads or rotary positions are impossible; runs on every construction."""
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if groups and heads % groups:
            raise ValueError(
                f"num_attention_heads {heads} must be a multiple of num_key_value_heads {groups}"
            )
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(
                f"attention_window {self.attention_window} must be at least 1, or null for no window"
            )
        rope_type = (self.rope_parameters or {}).get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            raise ValueError(f"rope_type {rope_type!r} is unknown; use one of {', '.join(ROPE_TYPES)}")


@strict
class VividMedConfig(CheckedConfig):
    """Configuration of the whole model. Without segmenters (None) the model only writes text.

    ``phrase_start_token_id`` and ``phrase_end_token_id`` are the ids of ``<p>`` and ``</p>``; they do not advance
    positions. The defaults are those of the published vocabulary.

    Grounding stages record what they trained. ``target_forms`` maps names of targets to ``"mask"``, ``"box"`` or
    ``"both"``: the form in which phrases about them are shown. ``presence_thresholds`` maps ``"mask"`` and ``"box"`` to
    the presence score below which a phrase counts as absent and draws nothing, calibrated on held-out rows.
    """

    model_type = "vividmed"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=VividMedVisionConfig),
        "text_config": SubConfigSpec(config_class=VividMedTextConfig),
        "segmenter_config": SubConfigSpec(config_class=SegmenterConfig, optional=True),
        "instance_segmenter_config": SubConfigSpec(config_class=InstanceSegmenterConfig, optional=True),
    }
    keys_to_ignore_at_inference = ("past_key_values", "cache", "loss_components", "mask_logits", "last_state")
    base_model_tp_plan = {  # noqa: RUF012
        # The fused projection is gathered before it is split into query, key and value.
        "layers.*.self_attn.vision_expert_query_key_value": "colwise_gather_output",
        "layers.*.self_attn.language_expert_query_key_value": "colwise_gather_output",
        "layers.*.self_attn.vision_expert_dense": "rowwise_split_input",
        "layers.*.self_attn.language_expert_dense": "rowwise_split_input",
        # A star stands for the number of a layer only.
        "layers.*.mlp.vision_mlp.gate_proj": "colwise",
        "layers.*.mlp.vision_mlp.up_proj": "colwise",
        "layers.*.mlp.vision_mlp.down_proj": "rowwise",
        "layers.*.mlp.language_mlp.gate_proj": "colwise",
        "layers.*.mlp.language_mlp.up_proj": "colwise",
        "layers.*.mlp.language_mlp.down_proj": "rowwise",
    }

    vision_config: Any = None
    text_config: Any = None
    segmenter_config: Any = None
    instance_segmenter_config: Any = None
    phrase_start_token_id: int = 32004
    phrase_end_token_id: int = 32005
    target_forms: dict[str, Any] | None = None
    presence_thresholds: dict[str, Any] | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = False

    @property
    def initializer_range(self) -> float:
        return self.text_config.initializer_range

    @property
    def prompt_size(self) -> int | None:
        """Width of the segmenters' prompts; None without segmenters."""
        sizes = {
            config.hidden_size for config in (self.segmenter_config, self.instance_segmenter_config) if config
        }
        return max(sizes, default=None)

    def validate_architecture(self) -> None:
        """Raise ValueError if the segmenters do not fit; the strict dataclass runs it on every construction."""
        configs = [self.segmenter_config, self.instance_segmenter_config]
        sizes = {config.hidden_size for config in configs if isinstance(config, PreTrainedConfig)}
        if len(sizes) > 1:
            raise ValueError(
                f"both segmenters read the same prompts, so their hidden_size must be equal, not {sorted(sizes)}"
            )

    def validate_grounding(self) -> None:
        """Raise ValueError if what the stages recorded is malformed; the strict dataclass runs it."""
        check_target_forms(self.target_forms or {})
        check_presence_thresholds(self.presence_thresholds or {})

    @classmethod
    def tiny(cls, vocab_size: int = 1032, *, grounding: bool = False, **kwargs: Any) -> "VividMedConfig":
        """A model of two to five million parameters that trains on two CPU cores in minutes.

        Its patches are (4, 16, 16). The default vocabulary is that of the tokenizer this package ships, whose last
        eight entries are the special tokens in the published order. ``grounding`` adds tiny segmenters, and two layers
        to the two of the decoder: it then writes where things are, and not only short answers.
        """
        if grounding:
            kwargs = {
                "segmenter_config": SegmenterConfig.tiny(),
                "instance_segmenter_config": InstanceSegmenterConfig.tiny(),
            } | kwargs
        return cls(
            vision_config=VividMedVisionConfig(
                hidden_size=128,
                intermediate_size=320,
                num_hidden_layers=3,
                num_attention_heads=4,
                patch_size=(4, 16, 16),
                position_grid=(4, 8, 8),
            ),
            text_config=VividMedTextConfig(
                vocab_size=vocab_size,
                hidden_size=128,
                intermediate_size=352,
                num_hidden_layers=4 if grounding else 2,
                num_attention_heads=4,
                # The usual 0.02 suits widths of thousands; at this width, text would dominate images for a long time.
                initializer_range=128**-0.5,
            ),
            phrase_start_token_id=vocab_size - 4,
            phrase_end_token_id=vocab_size - 3,
            **kwargs,
        )

    @classmethod
    def preset(
        cls, name: str, *, vocab_size: int | None = None, grounding: bool = False, **kwargs: Any
    ) -> "VividMedConfig":
        """A model of a standard size.

        Args:
            name: ``17b``, the published model; ``3b`` and ``1b``, the same on smaller parts; or ``tiny``, see
                :meth:`tiny`. The names are rounded numbers of weights, without segmenters.
            vocab_size: number of tokens, of which the last eight are the special tokens in the published order; by
                default 32008, or that of the packaged tokenizer for ``tiny``.
            grounding: add both segmenters, in the published size or tiny.
            **kwargs: further settings of this class.

        Raises:
            VividMedError: there is no such preset.
        """
        if name not in PRESETS:
            raise VividMedError(f"preset {name!r} is unknown; use one of {', '.join(PRESETS)}")
        if name == "tiny":
            sizes = {} if vocab_size is None else {"vocab_size": vocab_size}
            return cls.tiny(**sizes, grounding=grounding, **kwargs)
        parts = _preset(name, vocab_size)
        if grounding:
            parts |= {
                "segmenter_config": SegmenterConfig(),
                "instance_segmenter_config": InstanceSegmenterConfig(),
            }
        size = parts["text_config"].vocab_size
        markers = {"phrase_start_token_id": size - 4, "phrase_end_token_id": size - 3}
        return cls(**(parts | markers | kwargs))

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Check that model and tokenizer share one vocabulary.

        Raises:
            VividMedError: the sizes differ, or the phrase markers have other ids.
        """
        if len(tokenizer) != self.text_config.vocab_size:
            raise VividMedError(
                f"the tokenizer has {len(tokenizer)} tokens but the model's vocab_size is "
                f"{self.text_config.vocab_size}: load both from the same folder, or resize the model's embeddings"
            )
        for token, expected in (("<p>", self.phrase_start_token_id), ("</p>", self.phrase_end_token_id)):
            found = tokenizer.convert_tokens_to_ids(token)
            if found != expected:
                raise VividMedError(
                    f"the tokenizer's id of {token} is {found} but the model expects {expected}: "
                    "load both from the same folder"
                )


def _preset(name: str, vocab_size: int | None) -> dict[str, Any]:
    """Vision tower, decoder and segmenters of a preset."""
    if name == "17b":
        return {"text_config": VividMedTextConfig(vocab_size=vocab_size or 32008)}
    vision, text = _SMALLER[name]
    return {
        "vision_config": VividMedVisionConfig(**vision),
        "text_config": VividMedTextConfig(vocab_size=vocab_size or 32008, **text),
    }


# Towers of EVA-CLIP's sizes, and decoders of the sizes of Llama 3.2 1B and SmolLM2 360M: the vision experts double the
# weights of a decoder's layers.
_SMALLER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3b": (
        {
            "hidden_size": 1408,
            "intermediate_size": 6144,
            "num_hidden_layers": 40,
            "num_attention_heads": 16,
        },
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    "1b": (
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        {
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
        },
    ),
}
PRESETS = ("17b", "3b", "1b", "tiny")
