"""Both segmenters through their public interface, on tiny models."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file

from vividmed.errors import VividMedError
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.instance_loss import InstanceLoss
from vividmed.models.segmenter.losses import MaskLoss
from vividmed.models.segmenter.mask_decoder import low_res_shape
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": (4, 8, 8),
    "position_grid": (2, 3, 3),
    "decoder_intermediate_size": 40,
    "decoder_num_attention_heads": 2,
}
SHAPES = [(8, 16, 24), (1, 32, 16), (2, 16, 24), (8, 16, 24), (16, 16, 16)]
PATCHES = [(4, 8, 8), (1, 8, 8), (2, 8, 8), (4, 8, 8), (4, 8, 8)]
PROMPTS = [2, 1, 3, 1, 0]


@pytest.fixture
def semantic() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(**SIZES))


@pytest.fixture
def instance() -> InstanceSegmenter:
    torch.manual_seed(0)
    return InstanceSegmenter(InstanceSegmenterConfig(**SIZES, num_instance_queries=4))


@pytest.fixture
def batch() -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "images": [torch.rand(3, *shape, generator=generator) for shape in SHAPES],
        "prompts": [torch.randn(count, 32, generator=generator) for count in PROMPTS],
        "patch_sizes": torch.tensor(PATCHES),
    }


def one(batch: dict, index: int) -> dict:
    return {name: value[index : index + 1] for name, value in batch.items()}


def without_gradient(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


def close(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return ours.shape == other.shape and torch.allclose(ours, other, atol=1e-5)


def test_masks_lie_on_the_grid_of_their_image(semantic, batch):
    masks = semantic(**batch).masks
    assert [tuple(mask.shape) for mask in masks] == [
        (n, *shape) for n, shape in zip(PROMPTS, SHAPES, strict=True)
    ]


def test_ragged_batch_gives_what_each_image_gives_by_itself(semantic, instance, batch):
    masks = semantic(**batch).masks
    instances = instance(**batch, output_masks=True)
    for index in range(len(SHAPES)):
        alone = instance(**one(batch, index), output_masks=True)
        assert close(masks[index], semantic(**one(batch, index)).masks[0])
        for name in ("boxes", "logits", "masks", "low_res_masks"):
            assert close(instances[name][index], alone[name][0])


def test_prompts_of_one_image_do_not_see_each_other(semantic, batch):
    whole = semantic(**one(batch, 0)).masks[0]
    second = semantic(batch["images"][:1], [batch["prompts"][0][1:]], PATCHES[:1]).masks[0]
    assert close(whole[1:], second)


def test_channels_that_share_their_memory_are_three_equal_ones(semantic, batch):
    batch["images"] = [image[:1].expand(3, -1, -1, -1) for image in batch["images"]]
    shared = semantic(**batch).masks
    batch["images"] = [image.contiguous() for image in batch["images"]]
    assert all(map(close, shared, semantic(**batch).masks))


def test_prompts_drawn_a_few_at_a_time_give_the_same_masks(semantic, batch, monkeypatch):
    together = semantic(**batch).masks
    monkeypatch.setattr("vividmed.models.segmenter.mask_decoder.FEATURES_AT_A_TIME", 1)
    with torch.no_grad():
        assert all(map(close, together, semantic(**batch).masks))


def test_black_and_white_images_differ(semantic, instance):
    prompts = torch.randn(1, 32)
    black, white = torch.zeros(3, 4, 16, 16), torch.ones(3, 4, 16, 16)
    arguments = [prompts, prompts], [(4, 8, 8)] * 2
    masks = semantic([black, white], *arguments).masks
    boxes = instance([black, white], *arguments).boxes
    assert (masks[0] - masks[1]).abs().max() > 1e-3
    assert (boxes[0] - boxes[1]).abs().max() > 1e-3


def test_images_without_prompts_are_not_encoded(semantic, batch):
    batch["images"][-1].fill_(torch.nan)
    output = semantic(**batch)
    assert output.masks[-1].shape == (0, *SHAPES[-1])
    assert all(mask.isfinite().all() for mask in output.masks)
    assert output.graph_anchor == 0


def test_instances_without_prompts_are_empty_and_finite(instance, batch):
    output = instance(**one(batch, 4), output_masks=True)
    assert output.boxes[0].shape == (0, 4, 6)
    assert output.logits[0].shape == (0, 4)
    assert output.masks[0].shape == (0, 4, *SHAPES[4])
    assert output.low_res_masks[0].shape == (0, 4, *low_res_shape(SHAPES[4], PATCHES[4]))
    assert output.graph_anchor == 0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("images", ["none", "without prompts"])
def test_empty_batch_gives_every_parameter_a_zero_gradient(semantic, instance, batch, images, checkpointing):
    batch = {name: value[:0] if images == "none" else value[4:] for name, value in batch.items()}
    for model, options in ((semantic, {}), (instance, {"output_masks": True})):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()(**batch, **options).graph_anchor.backward()
        assert without_gradient(model) == []
        assert all(parameter.grad.abs().max() == 0 for parameter in model.parameters())


def test_empty_prompts_stay_tied_to_what_made_them(semantic):
    projection = torch.nn.Linear(8, 32)
    prompts = projection(torch.zeros(0, 8))
    semantic([torch.rand(3, 4, 8, 8)], [prompts], [(4, 8, 8)]).graph_anchor.backward()
    assert without_gradient(projection) == []


def test_losses_reach_every_parameter(semantic, instance, batch):
    output = semantic(**one(batch, 0))
    MaskLoss()(output.masks[0], torch.rand(2, *SHAPES[0]) > 0.5).total.backward()
    assert without_gradient(semantic) == []

    output = instance(**one(batch, 0), output_masks=True)
    labels = [torch.full((1, 6), 0.5), torch.full((0, 6), 0.5)]
    masks = [torch.ones(1, *SHAPES[0]), torch.zeros(0, *SHAPES[0])]
    InstanceLoss()(
        output.boxes[0],
        output.logits[0],
        labels,
        masks=output.masks[0],
        low_res_masks=output.low_res_masks[0],
        target_masks=masks,
    ).total.backward()
    assert without_gradient(instance) == []


def test_only_mask_parameters_are_idle_when_no_masks_are_drawn(instance, batch):
    output = instance(**batch)
    assert output.masks is None
    sum(box.sum() for box in [*output.boxes, *output.logits]).backward()
    idle = {id(parameter) for parameter in instance.mask_parameters()}
    assert idle
    assert {id(p) for p in instance.parameters() if p.grad is None} == idle


@pytest.mark.parametrize("empty", [False, True])
def test_every_layer_runs_once_whatever_the_batch(semantic, batch, empty):
    """Sharded training gathers a layer's weights whenever it runs: all processes must run it equally often."""
    calls: list[str] = []
    for name, module in semantic.named_modules():
        if type(module).__name__ in semantic._no_split_modules:
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    semantic(**{name: value[:0] if empty else value for name, value in batch.items()})
    assert len(calls) == len(set(calls)) == 2 + 2


def test_eager_attention_equals_sdpa(semantic, batch):
    sdpa = semantic(**batch).masks
    semantic.set_attn_implementation("eager")
    assert all(close(a, b) for a, b in zip(sdpa, semantic(**batch).masks, strict=True))


def test_gradient_checkpointing_changes_no_gradient(instance, batch):
    gradients = []
    for checkpointing in (False, True):
        instance.zero_grad()
        if checkpointing:
            instance.activation_checkpointing_enable()
        output = instance.train()(**batch)
        sum(box.square().sum() for box in [*output.boxes, *output.logits]).backward()
        gradients.append([p.grad.clone() for p in instance.parameters() if p.grad is not None])
    assert all(close(a, b) for a, b in zip(*gradients, strict=True))


def test_saved_segmenter_reloads_exactly(instance, batch, tmp_path):
    instance.save_pretrained(tmp_path)
    reloaded = InstanceSegmenter.from_pretrained(tmp_path)
    assert reloaded.config.num_instance_queries == 4
    assert all(
        torch.equal(tensor, reloaded.state_dict()[name]) for name, tensor in instance.state_dict().items()
    )
    assert torch.equal(instance(**batch).boxes[0], reloaded(**batch).boxes[0])


def test_lost_fourier_frequencies_are_refused(semantic, tmp_path):
    semantic.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["prompt_encoder.position_encoding.frequencies"]
    with pytest.raises(RuntimeError, match="frequencies is missing"):
        semantic.load_state_dict(weights, strict=False)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VividMedError, match="frequencies is missing"):
        Segmenter.from_pretrained(tmp_path)


def test_weights_of_other_modules_load_without_frequencies(semantic):
    before = semantic.prompt_encoder.position_encoding.frequencies.clone()
    semantic.load_state_dict({"image_encoder.norm.weight": torch.zeros(32)}, strict=False)
    assert semantic.image_encoder.norm.weight.abs().max() == 0
    assert torch.equal(before, semantic.prompt_encoder.position_encoding.frequencies)


def test_half_precision_prompts_and_images_are_computed_in_the_segmenters_precision(semantic, batch):
    halved = {name: [v.bfloat16() for v in batch[name]] for name in ("images", "prompts")}
    masks = semantic(**halved, patch_sizes=batch["patch_sizes"]).masks
    assert {mask.dtype for mask in masks} == {torch.float32}


@pytest.mark.parametrize(
    ("image", "patch", "grid"),
    [
        ((1, 32, 16), (1, 8, 8), (1, 16, 8)),
        ((8, 16, 16), (2, 8, 8), (8, 8, 8)),
        ((8, 8, 8), (4, 8, 8), (8, 4, 4)),
    ],
)
def test_masks_are_drawn_no_finer_than_the_slices(instance, image, patch, grid):
    assert low_res_shape(image, patch) == grid
    output = instance([torch.rand(3, *image)], [torch.randn(1, 32)], [patch], output_masks=True)
    assert output.low_res_masks[0].shape == (1, 4, *grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [torch.randn(1, 32)] * 2}, "1 images, 2 prompt tensors and 1 patch sizes"),
        ({"prompts": [torch.randn(1, 31)]}, r"prompts of image 0 have shape \(1, 31\)"),
        ({"images": [torch.rand(1, 4, 8, 8)]}, r"image 0 has shape \(1, 4, 8, 8\)"),
        ({"patch_sizes": [(3, 8, 8)]}, r"image 0 has patch size \(3, 8, 8\): z must divide 4"),
        ({"patch_sizes": [(0, 8, 8)]}, "z must divide 4"),
        ({"patch_sizes": [(4, 4, 8)]}, r"y and x must be \[8, 8\]"),
        ({"images": [torch.rand(3, 4, 12, 8)]}, "pad it to multiples of its patch size"),
    ],
)
def test_unfit_input_is_refused_by_name(semantic, change, message):
    good = {"images": [torch.rand(3, 4, 8, 8)], "prompts": [torch.randn(1, 32)], "patch_sizes": [(4, 8, 8)]}
    semantic(**good)
    with pytest.raises(VividMedError, match=message):
        semantic(**(good | change))


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 3}, {"hidden_size": 36}, {"patch_size": (8, 8)}, {"position_grid": (0, 3, 3)}],
)
def test_impossible_sizes_are_refused(change):
    SegmenterConfig(**SIZES)
    with pytest.raises(StrictDataclassClassValidationError, match="must be"):
        SegmenterConfig(**(SIZES | change))


def test_tiny_segmenter_learns_two_prompts_of_one_image():
    torch.manual_seed(0)
    model = Segmenter(SegmenterConfig.tiny(num_hidden_layers=1))
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    image = torch.rand(3, 4, 64, 64) * 0.2
    targets = torch.zeros(2, 4, 64, 64, dtype=torch.bool)
    targets[0, :, 8:28, 8:28] = True
    targets[1, :, 36:56, 30:60] = True
    image += 0.6 * targets.any(0)
    prompts = [torch.randn(2, 96)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        MaskLoss()(model([image], prompts, [(4, 16, 16)]).masks[0], targets).total.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model([image], prompts, [(4, 16, 16)]).masks[0] > 0
    space = (1, 2, 3)
    dice = 2 * (predicted & targets).sum(space) / (predicted.sum(space) + targets.sum(space))
    assert dice.min() > 0.9


def test_smooth_initial_weights_tell_dark_from_bright_and_left_from_right():
    torch.manual_seed(0)
    embedding = Segmenter(SegmenterConfig.tiny()).image_encoder.patch_embedding
    kernel = embedding.projection.weight.detach()
    positions = embedding.position_embedding.weight[0].detach()
    cells = kernel.unflatten(-1, (4, -1)).unflatten(-3, (4, -1))
    assert torch.equal(cells, cells[:, :1, :1, :, :1, :, :1].expand_as(cells))
    assert kernel.sum((1, 2, 3, 4)).std() == pytest.approx(1, abs=0.2)
    assert positions.std() == pytest.approx(1, abs=0.1)
    # Neighbours resemble each other more than opposite edges do.
    near, far = (positions[..., a] - positions[..., b] for a, b in ((3, 4), (0, -1)))
    assert near.square().mean() < far.square().mean() / 8
    noise = Segmenter(SegmenterConfig.tiny(smooth_initializer=False)).image_encoder.patch_embedding
    assert not torch.equal(noise.projection.weight[..., 0], noise.projection.weight[..., 1])
