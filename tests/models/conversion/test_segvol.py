"""Loading of SegVol's weights into both segmenters."""

import pytest
import torch

from tests.fixtures.segvol import SEGVOL_GRID, SEGVOL_PATCH, segvol_weights
from vividmed.errors import VividMedError
from vividmed.models.conversion.segvol import load_segmenter_weights, segmenter_tensor_name
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": (4, 8, 8),
    "position_grid": (2, 3, 3),
    "decoder_intermediate_size": 20,
    "decoder_num_attention_heads": 2,
}
PATCH, GRID = SEGVOL_PATCH, SEGVOL_GRID


@pytest.fixture
def segvol() -> dict[str, torch.Tensor]:
    return segvol_weights()


def load(model, segvol):
    return load_segmenter_weights(model, segvol, prefix="model.", patch_size=PATCH, position_grid=GRID)


def test_every_tensor_of_segvol_is_accounted_for(segvol):
    model = Segmenter(SegmenterConfig(**SIZES))
    report = load(model, segvol)
    assert len(report.copied) + len(report.converted) + len(report.dropped) == len(segvol)
    assert len(report.copied) + len(report.converted) == len(model.state_dict())
    assert report.initialized == []
    assert {name.split(".")[1] for name in report.dropped} == {
        "text_encoder",
        "prompt_encoder",
        "mask_decoder",
    }
    frequencies = segvol["model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(model.prompt_encoder.position_encoding.frequencies, frequencies)


def test_tensors_outside_the_prefix_are_ignored(segvol):
    report = load(Segmenter(SegmenterConfig(**SIZES)), segvol | {"lm_head.weight": torch.zeros(2)})
    assert not any("lm_head" in name for name in report.dropped)


def test_grey_image_excites_patches_as_in_segvol(segvol):
    """One grey channel copied to three, and patches twice as large, leave the response to a constant unchanged."""
    model = Segmenter(SegmenterConfig(**SIZES))
    load(model, segvol)
    response = segvol["model.image_encoder.patch_embedding.patch_embeddings.1.weight"].sum(1) * 0.7
    response += segvol["model.image_encoder.patch_embedding.patch_embeddings.1.bias"]
    image = torch.full((1, 3, 4, 8, 8), 0.7)
    ours = model.image_encoder.patch_embedding.projection(image, (4, 8, 8)).flatten()
    assert torch.allclose(ours, response, atol=1e-4)


def test_each_form_takes_its_own_filter_network(segvol):
    semantic, instance = (
        Segmenter(SegmenterConfig(**SIZES)),
        InstanceSegmenter(InstanceSegmenterConfig(**SIZES)),
    )
    for index, model in enumerate((semantic, instance)):
        load(model, segvol)
        expected = segvol[f"model.mask_decoder.output_hypernetworks_mlps.{index}.layers.2.weight"]
        assert torch.equal(model.mask_decoder.mask_head.layers[2].weight, expected)


def test_heads_that_segvol_lacks_stay_and_are_reported(segvol):
    model = InstanceSegmenter(InstanceSegmenterConfig(**SIZES))
    before = model.box_head.layers[0].weight.clone()
    report = load(model, segvol)
    assert torch.equal(model.box_head.layers[0].weight, before)
    assert {name.split(".")[0] for name in report.initialized} == {"box_head", "score_head"}
    assert len(report.initialized) == 6 + 4


@pytest.mark.parametrize("queries", [1, 3, 6])
def test_mask_tokens_are_cut_or_kept(segvol, queries):
    model = Segmenter(SegmenterConfig(**SIZES, num_instance_queries=queries))
    before = model.mask_decoder.mask_tokens.weight.clone()
    load(model, segvol)
    after, given = model.mask_decoder.mask_tokens.weight, segvol["model.mask_decoder.mask_tokens.weight"]
    shared = min(len(after), len(given))
    assert torch.equal(after[:shared], given[:shared])
    assert torch.equal(after[shared:], before[shared:])


@pytest.mark.parametrize("name", ["position_embeddings", "position_embeddings.weight"])
def test_position_grids_are_resampled_in_both_forms(segvol, name):
    source = "model.image_encoder.patch_embedding.position_embeddings"
    flat = segvol.pop(source)
    grid = flat.mT.unflatten(2, GRID)
    segvol[f"model.image_encoder.patch_embedding.{name}"] = flat if name == "position_embeddings" else grid
    model = Segmenter(SegmenterConfig(**(SIZES | {"position_grid": (1, 2, 4)})))
    load(model, segvol)
    expected = grid.mean(2, keepdim=True)
    assert torch.allclose(model.image_encoder.patch_embedding.position_embedding.weight, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", None, "frequencies is missing"),
        ("image_encoder.norm.weight", None, r"lacks 1 tensors \(image_encoder.norm.weight\)"),
        (None, {"image_encoder.blocks.7.norm1.weight": (16,)}, "has unknown 1 tensors"),
        (None, {"mask_decoder.iou_token.weight": (1, 8)}, "has shape"),
        (None, {"image_encoder.patch_embedding.patch_embeddings.1.weight": (16, 30)}, "give the patch_size"),
        (None, {"image_encoder.patch_embedding.position_embeddings": (1, 15, 16)}, "give the position_grid"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(segvol, drop, add, message):
    load(Segmenter(SegmenterConfig(**SIZES)), segvol)
    if drop:
        del segvol[f"model.{drop}"]
    segvol |= {f"model.{name}": torch.zeros(shape) for name, shape in (add or {}).items()}
    with pytest.raises(VividMedError, match=message):
        load(Segmenter(SegmenterConfig(**SIZES)), segvol)


def test_names_without_a_rule_stay():
    assert segmenter_tensor_name("image_encoder.norm.weight", instance=False) == "image_encoder.norm.weight"
