import json
import math

import numpy as np
import pytest
import torch

from tests.fixtures.volumes import ORIENTATIONS, ball, store
from vividmed.errors import VividMedError
from vividmed.processing.boxes import mask_to_box
from vividmed.processing.geometry import (
    ResizePlan,
    depth_tokens,
    largest_resize,
    plan_resize,
    resize,
)

BUDGET = {"patch_size": (16, 16, 16), "pool_size": (2, 2, 2), "max_image_tokens": 144, "max_slice_tokens": 4}


def random_plan(draw: np.random.Generator, *, longest: int = 120) -> ResizePlan:
    """A plan for a random size, spacing, orientation, patch depth and budget."""
    size = tuple(int(n) for n in draw.integers(1, longest, 3))
    spacing = tuple(draw.uniform(0.3, 6.0, 3))
    order, signs = ORIENTATIONS[draw.integers(len(ORIENTATIONS))]
    _, affine = store(np.zeros((1, 1, 1)), spacing, order, signs)
    return plan_resize(
        size,
        affine=affine,
        oriented=bool(draw.integers(2)),
        patch_size=(int(2 ** draw.integers(0, 5)), int(draw.choice([8, 14, 16])), 16),
        pool_size=(int(draw.integers(1, 3)), 2, int(draw.integers(1, 3))),
        max_image_tokens=int(draw.integers(16, 200)),
        max_slice_tokens=int(draw.integers(1, 6)),
    )


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return 2 * (a & b).sum().item() / max((a.sum() + b.sum()).item(), 1)


def test_the_plane_is_enlarged_to_fill_the_budget_and_never_exceeds_it():
    draw = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(int(n) for n in draw.integers(1, 3000, 2))
        budget = int(draw.integers(1, 200))
        height, width = largest_resize(size, (32, 32), budget)
        assert math.ceil(height / 32) * math.ceil(width / 32) <= budget
        # Enlarging both axes to the next token would leave the budget.
        assert (math.ceil(height / 32) + 1) * (math.ceil(width / 32) + 1) > budget


def test_depth_tokens_cover_every_slice_or_reach_their_limit():
    for size in range(1, 600):
        depth = depth_tokens(size, base_patch=16, base_pool=2, max_tokens=4)
        assert depth.stride == depth.patch * depth.pool
        assert depth.tokens == min(math.ceil(size / depth.stride), 4)


def test_depth_jitter_repeats_with_the_generator_and_varies_without():
    settings = {"base_patch": 16, "base_pool": 2, "max_tokens": 4}

    def draws(seed):
        generator = np.random.default_rng(seed)
        return [depth_tokens(45, **settings, generator=generator).patch for _ in range(50)]

    assert draws(1) == draws(1)
    assert len(set(draws(1))) > 1
    assert depth_tokens(45, **settings).patch == 4


def test_a_plan_gives_whole_tokens_within_its_budget_and_covers_the_original_grid():
    draw = np.random.default_rng(1)
    for _ in range(60):
        plan = random_plan(draw, longest=50)
        stride = [patch * pool for patch, pool in zip(plan.patch_size, plan.pool_size, strict=True)]
        assert [n % s for n, s in zip(plan.model_size, stride, strict=True)] == [0, 0, 0]
        assert all(abs(before - after) <= 1 for before, after in plan.padding)
        image = torch.rand(2, *plan.original_size)
        assert plan.apply(image).shape == (2, *plan.model_size)
        assert plan.restore(torch.rand(2, *plan.model_size)).shape == (2, *plan.original_size)


def test_token_budget_holds_for_random_volumes():
    draw = np.random.default_rng(2)
    for _ in range(200):
        size = tuple(int(n) for n in draw.integers(1, 400, 3))
        plan = plan_resize(size, affine=np.eye(4), oriented=False, **BUDGET)
        assert plan.num_patch_tokens <= 144
        assert plan.grid_size[0] <= 4


def test_masks_return_to_the_original_grid():
    draw = np.random.default_rng(3)
    compared = 0
    for _ in range(120):
        plan = random_plan(draw, longest=90)
        scale = [n / m for n, m in zip(plan.resized_size, plan.oriented_size, strict=True)]
        # At least 18 voxels wide on both grids: below, the grid itself costs more than 3 % of a round body.
        radius = [max(9 / s, 9) for s in scale]
        radius = [radius[i] for i in np.argsort(plan.axes)]
        if any(2 * r > n for r, n in zip(radius, plan.original_size, strict=True)):
            continue
        centre = [draw.uniform(r, n - r) for r, n in zip(radius, plan.original_size, strict=True)]
        mask = torch.from_numpy(ball(plan.original_size, centre, radius))
        assert dice(plan.restore_mask(plan.apply_mask(mask)), mask) >= 0.97
        compared += 1
    assert compared >= 15


def test_masks_return_on_published_sizes():
    for size in ((1, 700, 500), (133, 160, 160), (40, 200, 240)):
        plan = plan_resize(size, affine=np.diag([-0.7, -0.7, 2.5, 1]), oriented=size[0] > 1, **BUDGET)
        radius = [max(n / 6, 0.5) for n in size]
        mask = torch.from_numpy(ball(size, [n / 2.2 for n in size], radius))
        assert dice(plan.restore_mask(plan.apply_mask(mask)), mask) >= 0.97


def soft_ball(size):
    """Probabilities that fall from the centre to the faces."""
    axes = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in size)
    squares = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    return (0.9 - squares / 2).clip(0, 0.9).astype(np.float32)


@pytest.mark.parametrize("found", ["everywhere", "somewhere", "in a ball", "nowhere"])
def test_restored_masks_are_the_restored_probabilities_that_reach_the_threshold(found):
    draw = np.random.default_rng(7)
    for threshold in (0.3, 0.5, 0.7) * 4:
        plan = random_plan(draw, longest=60)
        values = torch.from_numpy(draw.random((2, *plan.model_size), dtype=np.float32))
        if found == "in a ball":
            # Few edges, so that most voxels follow without interpolation.
            values = values * 0.1 + torch.from_numpy(soft_ball(plan.model_size))
        elif found != "everywhere":
            outside = torch.ones(plan.model_size, dtype=torch.bool)
            low = [int(draw.integers(0, n)) for n in plan.model_size]
            outside[tuple(slice(a, a + 9) for a in low)] = found == "nowhere"
            values[:, outside] *= 0.2
        expected = plan.restore(values)
        clear = (expected - threshold).abs() > 1e-5
        assert torch.equal(plan.restore_mask(values, threshold)[clear], (expected >= threshold)[clear])


def test_boxes_and_points_return_exactly():
    draw = np.random.default_rng(4)
    for _ in range(100):
        plan = random_plan(draw)
        low = torch.from_numpy(draw.uniform(0, 0.5, (5, 3))) * torch.tensor(plan.original_size)
        high = torch.from_numpy(draw.uniform(0.5, 1, (5, 3))) * torch.tensor(plan.original_size)
        boxes = torch.cat([low, high], dim=-1)
        there = plan.boxes_to_model(boxes)
        assert (there[:, :3] <= there[:, 3:]).all()
        assert (there[:, 3:] <= torch.tensor(plan.model_size) + 1e-9).all()
        torch.testing.assert_close(plan.boxes_to_original(there), boxes)
        torch.testing.assert_close(plan.points_to_original(plan.points_to_model(low)), low)


def test_boxes_follow_the_mask_within_a_voxel_of_the_coarser_grid():
    draw = np.random.default_rng(5)
    compared = 0
    for _ in range(100):
        plan = random_plan(draw, longest=80)
        low = [int(draw.integers(0, max(n // 3, 1))) for n in plan.original_size]
        high = [int(draw.integers(n - n // 3, n + 1)) for n in plan.original_size]
        mask = torch.zeros(plan.original_size, dtype=torch.bool)
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        moved = plan.apply_mask(mask)
        if moved.any():
            expected = plan.boxes_to_model(torch.tensor([*low, *high]))
            voxel = [max(n / m, 1) for n, m in zip(plan.resized_size, plan.oriented_size, strict=True)]
            assert ((mask_to_box(moved) - expected).abs() <= torch.tensor(voxel * 2)).all()
            compared += 1
    assert compared >= 80


def test_a_plan_survives_json():
    plan = random_plan(np.random.default_rng(6))
    assert ResizePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_values_of_another_grid_are_refused():
    plan = plan_resize((1, 100, 80), affine=np.eye(4), oriented=False, **BUDGET)
    with pytest.raises(VividMedError, match="original grid"):
        plan.apply(torch.zeros(1, 1, 80, 100))
    with pytest.raises(VividMedError, match="model grid"):
        plan.restore(torch.zeros(1, 1, 100, 80))


def test_padding_is_symmetric_and_black():
    plan = plan_resize((1, 100, 80), affine=np.eye(4), oriented=False, **BUDGET)
    (_, _), (top, bottom), (left, right) = plan.padding
    assert top + bottom + left + right > 0
    padded = plan.apply(torch.ones(1, 1, 100, 80))
    inside = padded[..., top : plan.model_size[1] - bottom, left : plan.model_size[2] - right]
    assert (inside == 1).all()
    assert padded.sum() == inside.sum()


def test_shrinking_averages_instead_of_skipping():
    stripes = torch.zeros(1, 8, 8, 64)
    stripes[..., ::2] = 1
    assert (resize(stripes, (8, 8, 16))[..., 2:-2] - 0.5).abs().max() < 0.1
    slices = torch.zeros(1, 64, 8, 8)
    slices[:, ::2] = 1
    assert (resize(slices, (16, 8, 8))[:, 2:-2] - 0.5).abs().max() < 0.1
