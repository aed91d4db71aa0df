"""Deformation moves images, masks and boxes together and keeps anatomy the right way round."""

import numpy as np
import pytest
import torch

from vividmed.data.batches.deformation import Deformation, DeformationSettings
from vividmed.processing.boxes import corners_to_fractions, fractions_to_corners

SIZE = (3, 64, 80)
MOVES = DeformationSettings(rotation=15, zoom=0.2, shift=0.05, elastic=0.05)
EVERYTHING = DeformationSettings(
    rotation=15, zoom=0.2, shift=0.05, elastic=0.05, gamma=0.5, contrast=0.3, resolution=2, noise=0.05
)


def draw(settings: DeformationSettings, seed: int) -> Deformation:
    return Deformation(settings, np.random.default_rng(seed), SIZE[1:])


def organ() -> torch.Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[1:, 20:40, 12:34] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_masks_and_boxes_move_with_the_image(seed):
    deformation, mask = draw(MOVES, seed), organ()
    box = torch.tensor([[1.0, 20, 12, 3, 40, 34]])
    labels = {
        "mask_phrases": torch.tensor([0]),
        "masks": mask[None],
        "box_phrases": torch.tensor([0]),
        "box_counts": torch.tensor([1]),
        "boxes": corners_to_fractions(box, SIZE).float(),
    }
    image = deformation.image(mask[None].float())
    moved = deformation.labels(labels)
    assert ((image[0] >= 0.5) == moved["masks"][0]).float().mean() > 0.999
    assert not torch.equal(moved["masks"][0], mask)
    found = fractions_to_corners(moved["boxes"], SIZE)[0]
    voxels = moved["masks"][0].nonzero()
    assert found[:3].tolist() == pytest.approx(voxels.amin(0).tolist(), abs=1.01)
    assert found[3:].tolist() == pytest.approx((voxels.amax(0) + 1).tolist(), abs=1.01)


def test_left_stays_left_and_up_stays_up():
    for seed in range(20):
        values = torch.zeros(1, *SIZE)
        values[..., 10:20, 10:20] = 1
        _, y, x = draw(EVERYTHING, seed).image(values)[0].gt(0.6).nonzero().float().mean(0).tolist()
        assert y < SIZE[1] / 2
        assert x < SIZE[2] / 2


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_in_range_and_grey_images_stay_grey(channels):
    values = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)).expand(channels, -1, -1, -1)
    changed = draw(EVERYTHING, 1).image(values)
    assert changed.shape == values.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, changed[:1].expand_as(changed))
    colour = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))
    changed = draw(MOVES, 1).image(colour)
    assert not torch.equal(changed[0], changed[1])


def test_the_draw_depends_on_the_generator_only():
    values = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        draw(EVERYTHING, 3).image(values), draw(EVERYTHING, 3).image(values), rtol=0, atol=0
    )
    assert not torch.equal(draw(EVERYTHING, 3).image(values), draw(EVERYTHING, 4).image(values))


def test_settings_of_zero_change_nothing():
    assert not DeformationSettings()
    assert EVERYTHING
    values = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(DeformationSettings(), 0).image(values), values)
    labels = {"masks": organ()[None]}
    assert draw(DeformationSettings(noise=0.1), 0).labels(labels) is labels


def test_rotation_keeps_shape_on_an_image_that_is_not_square():
    """A disk stays a disk: rotation acts on pixels, not on the stretched coordinates."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    disk = (((y - 31.5) ** 2 + (x - 39.5) ** 2) < 20**2).float().expand(1, 1, -1, -1)
    for seed in range(5):
        turned = Deformation(DeformationSettings(rotation=45), np.random.default_rng(seed), (64, 80)).image(
            disk
        )
        assert (turned - disk).abs().mean() < 0.01


def test_a_box_that_leaves_the_image_keeps_its_place_in_the_list():
    away = DeformationSettings(shift=0.5)
    boxes = corners_to_fractions(torch.tensor([[0.0, 0, 0, 3, 4, 4], [0, 20, 20, 3, 40, 40]]), SIZE).float()
    for seed in range(10):
        moved = draw(away, seed).labels({"boxes": boxes})["boxes"]
        assert moved.shape == boxes.shape
        assert (moved[:, 3:] > 0).all()
        assert (moved >= 0).all()
        assert (moved <= 1).all()
