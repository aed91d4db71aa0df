import numpy as np
import pytest
import torch

from vividmed.data.batches.augmentation import Augmentation
from vividmed.data.batches.labels import masks_to_model
from vividmed.data.masks import pack_mask
from vividmed.errors import VividMedError
from vividmed.processing.geometry import ResizePlan

SIZE = (20, 33, 41)


def _plan(
    axes: tuple[int, int, int], flips: tuple[bool, bool, bool], resized: tuple[int, int, int]
) -> ResizePlan:
    return ResizePlan(
        original_size=SIZE,
        axes=axes,
        flips=flips,
        resized_size=resized,
        padding=((1, 2), (0, 3), (4, 0)),
        patch_size=(1, 1, 1),
        pool_size=(1, 1, 1),
        affine=tuple(map(tuple, np.eye(4))),  # type: ignore[arg-type]
    )


def _masks(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(3):
        mask = np.zeros(SIZE, bool)
        low = [int(generator.integers(0, n - 6)) for n in SIZE]
        mask[tuple(slice(a, a + 6) for a in low)] = generator.random((6, 6, 6)) < 0.8
        masks.append(mask)
    masks[0][-1, -1, -1] = masks[1][0, 0, 0] = True
    return masks


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
@pytest.mark.parametrize(
    "augmentation", [None, Augmentation(flips=(True, False, True)), Augmentation(flips=(False, True, False))]
)
@pytest.mark.parametrize("resized", [(8, 16, 16), (20, 40, 50), (30, 9, 33)])
def test_equals_resizing_the_whole_grid(axes, flips, augmentation, resized):
    plan = _plan(axes, flips, resized)
    masks = _masks(sum(resized))
    union = np.logical_or.reduce(masks)
    moved = union if augmentation is None else augmentation.array(union)
    soft = plan.apply(torch.from_numpy(np.ascontiguousarray(moved)))
    entries = [pack_mask("liver", mask) for mask in masks]
    fast = masks_to_model(entries, size=SIZE, plan=plan, augmentation=augmentation)
    decided = (soft - 0.5).abs() > 1e-5
    assert fast.shape == soft.shape
    assert (fast[decided] == (soft >= 0.5)[decided]).all()
    assert fast.any()


def test_no_mask_and_an_empty_mask_give_an_empty_one():
    plan = _plan((0, 1, 2), (False, False, False), (8, 16, 16))
    assert not masks_to_model([], size=SIZE, plan=plan).any()
    assert not masks_to_model([pack_mask("liver", np.zeros(SIZE, bool))], size=SIZE, plan=plan).any()


def test_a_mask_outside_the_grid_is_refused():
    plan = _plan((0, 1, 2), (False, False, False), (8, 16, 16))
    outside = pack_mask("liver", np.ones((21, 33, 41), bool))
    with pytest.raises(VividMedError, match="liver"):
        masks_to_model([outside], size=SIZE, plan=plan)
