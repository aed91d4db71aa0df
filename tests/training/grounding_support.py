"""A small model with segmenters, and phantom rows in files, for tests of the stages that ground."""

from pathlib import Path

from transformers import set_seed

from benchmarks.learning.phantom_studies import make_phantom, make_rows
from tests.training.support import small_config, small_processor
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.processing.processing_vividmed import VividMedProcessor

SEGMENTER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": (4, 16, 16),
    "position_grid": (2, 2, 2),
    "decoder_intermediate_size": 64,
    "decoder_num_attention_heads": 2,
}


def grounding_model(processor: VividMedProcessor) -> VividMedForCausalLM:
    set_seed(0)
    config = small_config(processor)
    config.segmenter_config = SegmenterConfig(**SEGMENTER)
    config.instance_segmenter_config = InstanceSegmenterConfig(**SEGMENTER)
    return VividMedForCausalLM(config)


def save_material(folder: Path) -> dict[str, str]:
    """Write a model with its processor, and data sets of 8 and 3 phantoms of both kinds."""
    processor = small_processor()
    grounding_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    for kind in ("localization", "grounded_report"):
        (folder / kind).mkdir()
        make_rows(kind, map(make_phantom, range(8))).to_parquet(folder / kind / "train.parquet")
        make_rows(kind, map(make_phantom, range(8, 11))).to_parquet(folder / kind / "test.parquet")
    return {
        "model": str(folder / "model"),
        **{kind: str(folder / kind) for kind in ("localization", "grounded_report")},
    }
