"""Configurations of the promptable 3D segmenters."""

from typing import Any, Self

from huggingface_hub.dataclasses import strict

from vividmed.models.configuration import CheckedConfig


@strict
class SegmenterConfig(CheckedConfig):
    """Configuration of a 3D SAM that draws one mask per prompt vector; the defaults are those of the published model.

    ``patch_size`` is the kernel of the patch convolution and ``position_grid`` the shape of the learned grid of
    position embeddings, both (z, y, x); images may be cut into patches that are thinner in z. Prompts have the width
    ``hidden_size``. The first mask token draws the mask; the ``num_instance_queries`` further ones only take part in
    the decoder's attention, as released weights were trained with them. ``position_initializer_range`` is the spread of
    position embeddings that are not loaded. With ``smooth_initializer``, these embeddings and the kernels of patches
    start as smooth functions of place instead of noise, for training that does not start from SegVol.
    """

    model_type = "vividmed_segmenter"
    base_config_key = "segmenter_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    patch_size: list[int] | tuple[int, ...] = (16, 16, 16)
    position_grid: list[int] | tuple[int, ...] = (8, 32, 32)
    decoder_intermediate_size: int = 2048
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 8
    num_instance_queries: int = 3
    position_initializer_range: float = 0.02
    smooth_initializer: bool = False

    def __post_init__(self, **kwargs: Any):
        self.patch_size = tuple(self.patch_size)
        self.position_grid = tuple(self.position_grid)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raise ValueError if widths do not divide; the strict dataclass runs it on every construction."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads {self.num_attention_heads}"
            )
        # The upscaling path ends at an eighth of the width, cross attention works at half of it.
        if self.hidden_size % 8 or (self.hidden_size // 2) % self.decoder_num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 8 and of twice "
                f"decoder_num_attention_heads {self.decoder_num_attention_heads}"
            )

    @classmethod
    def tiny(cls, **kwargs: Any) -> Self:
        """A segmenter of well under a million parameters that trains on two CPU cores; its patches are (4, 16, 16)."""
        sizes: dict[str, Any] = {
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "patch_size": (4, 16, 16),
            "position_grid": (4, 8, 8),
            "decoder_intermediate_size": 192,
            "decoder_num_attention_heads": 4,
            # From noise or with a small spread, a small model needs thousands of steps to learn left from right.
            "position_initializer_range": 1.0,
            "smooth_initializer": True,
        }
        return cls(**(sizes | kwargs))


@strict
class InstanceSegmenterConfig(SegmenterConfig):
    """Configuration of a 3D SAM that finds up to ``num_instance_queries`` instances per prompt vector."""

    model_type = "vividmed_instance_segmenter"
    base_config_key = "instance_segmenter_config"

    num_instance_queries: int = 6
