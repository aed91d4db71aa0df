"""Augmentation moves image, masks, boxes and names together; labels land on the model's grid."""

import itertools

import numpy as np
import pytest
import torch

from vividmed.data.batches.augmentation import Augmentation, AugmentationSettings, equalize, left_right_axis
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import PhraseTarget
from vividmed.data.masks import bounding_box, pack_mask
from vividmed.errors import VividMedError
from vividmed.processing.boxes import fractions_to_corners
from vividmed.processing.medical_image import MedicalImage, picture_affine
from vividmed.processing.processing_vividmed import VividMedProcessor

ALWAYS = AugmentationSettings(flip=1.0, rotate=1.0, intensity=1.0)


def volume(size=(12, 40, 30), spacing=(3.0, 0.8, 0.8)) -> MedicalImage:
    z, y, x = spacing
    values = np.random.default_rng(0).integers(0, 200, (1, *size), dtype=np.int16)
    return MedicalImage(values, np.diag([-x, -y, z, 1.0]), oriented=True)


def draws(count: int = 40):
    for seed in range(count):
        yield Augmentation.draw(volume(), ["liver"], generator=np.random.default_rng(seed))


def test_boxes_move_with_the_voxels():
    size = (12, 40, 30)
    rng = np.random.default_rng(1)
    for augmentation in draws():
        low = rng.integers(0, np.array(size) - 2)
        high = low + 1 + rng.integers(0, np.array(size) - low)
        high = np.minimum(high, size)
        mask = np.zeros(size, dtype=bool)
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        moved = augmentation.boxes(np.concatenate([low, high])[None], size)[0]
        assert tuple(moved) == bounding_box(augmentation.array(mask))


def test_every_kind_of_move_is_drawn():
    seen = list(draws(80))
    assert {a.flips for a in seen} == {
        (z, y, x) for z in (False, True) for y in (False, True) for x in (False, True)
    }
    assert {a.quarter_turns for a in seen} == {0, 1, 2, 3}
    assert {a.swaps_sides for a in seen} == {False, True}
    assert any(a.scale != 1 for a in seen)
    assert any(a.shift != 0 for a in seen)


def test_the_same_generator_draws_the_same_augmentation():
    assert list(draws(5)) == list(draws(5))


def test_only_mirroring_left_and_right_swaps_names():
    row = {
        "targets": ["left kidney", "liver"],
        "absent": ["right lung"],
        "masks": [{"target": "left kidney", "box": [0] * 6, "bits": b""}],
        "incomplete": ["left kidney"],
        "boxes": [],
    }
    mirrored = Augmentation(flips=(False, False, True), swaps_sides=True).row(row)
    assert mirrored["targets"] == ["right kidney", "liver"]
    assert mirrored["absent"] == ["left lung"]
    assert mirrored["masks"][0]["target"] == "right kidney"
    assert mirrored["incomplete"] == ["right kidney"]
    assert row["targets"] == ["left kidney", "liver"]
    assert Augmentation(flips=(True, True, False)).row(row) == row


def test_names_with_a_side_are_not_turned_and_unpaired_ones_not_mirrored():
    for seed in range(20):
        sided = Augmentation.draw(
            volume(), ["left kidney"], generator=np.random.default_rng(seed), settings=ALWAYS
        )
        assert sided.quarter_turns == 0
        assert sided.swaps_sides
        unpaired = Augmentation.draw(
            volume(), ["right lung middle lobe"], generator=np.random.default_rng(seed), settings=ALWAYS
        )
        assert not unpaired.swaps_sides
        assert unpaired.flips == (True, True, False)


def test_the_left_right_axis_follows_the_affine():
    assert left_right_axis(volume()) == 2
    sagittal = np.zeros((4, 4))
    sagittal[0, 2], sagittal[1, 0], sagittal[2, 1], sagittal[3, 3] = 3.0, 1.0, -1.0, 1.0
    assert left_right_axis(MedicalImage(np.zeros((1, 3, 4, 5)), sagittal, oriented=True)) == 0
    assert left_right_axis(MedicalImage(np.zeros((1, 1, 4, 5)), picture_affine())) == 2


def test_a_quarter_turn_swaps_the_spacing_of_the_plane():
    image = volume(spacing=(3.0, 0.5, 0.9))
    turned = Augmentation(quarter_turns=1).image(image)
    assert turned.spacing == pytest.approx((3.0, 0.9, 0.5))
    assert turned.size == (12, 30, 40)


def test_equalisation_is_one_monotone_map_for_the_whole_volume():
    values = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) ** 3
    values[:, :, :3] = 0
    equalized = equalize(values)
    foreground = equalized[values > 0]
    assert (equalized[values == 0] == 0).all()
    order = values[values > 0].argsort()
    assert (foreground[order].diff() >= 0).all()
    assert abs(foreground.mean() - 0.5) < 0.05
    assert values[values > 0].mean() < 0.3


def labelled_row(size=(12, 40, 30)) -> tuple[dict, dict[str, np.ndarray]]:
    masks = {name: np.zeros(size, dtype=bool) for name in ("liver", "spleen")}
    masks["liver"][2:9, 5:25, 2:14] = True
    masks["spleen"][3:8, 20:34, 18:28] = True
    row = {
        "masks": [pack_mask(name, mask) for name, mask in masks.items()],
        "incomplete": [],
        "boxes": [
            {"target": "lung nodule", "box": [1, 4, 6, 5, 10, 12]},
            {"target": "cyst", "box": [0, 0, 0, 12, 40, 30]},
            {"target": "lung nodule", "box": [6, 20, 10, 9, 26, 18]},
        ],
    }
    return row, masks


def phrase(*targets: str, label_type: str | None, present: bool = True) -> PhraseTarget:
    return PhraseTarget(text="it", targets=targets, present=present, label_type=label_type)  # type: ignore[arg-type]


def test_each_phrase_gets_the_labels_of_its_own_targets():
    row, masks = labelled_row()
    plan = VividMedProcessor.tiny().image_processor.plan((12, 40, 30), volume().affine)
    phrases = [
        phrase("liver", label_type=None),
        phrase("liver", "spleen", label_type="mask"),
        phrase("lung nodule", label_type="box"),
        phrase("tumor", label_type="mask", present=False),
        phrase("mass", label_type="box", present=False),
    ]
    labels = grounding_labels(row, phrases, size=(12, 40, 30), plan=plan)
    assert labels["mask_phrases"].tolist() == [1, 3]
    expected = plan.apply_mask(torch.from_numpy(masks["liver"] | masks["spleen"])[None])[0]
    assert torch.equal(labels["masks"][0], expected)
    assert not labels["masks"][1].any()
    assert labels["box_phrases"].tolist() == [2, 4]
    assert labels["box_counts"].tolist() == [2, 0]
    restored = plan.boxes_to_original(fractions_to_corners(labels["boxes"], plan.model_size))
    torch.testing.assert_close(
        restored, torch.tensor([[1, 4, 6, 5, 10, 12], [6, 20, 10, 9, 26, 18]]).double(), atol=1e-4, rtol=0
    )


def test_labels_follow_the_augmented_image():
    row, masks = labelled_row()
    for augmentation in draws(10):
        image = augmentation.image(volume())
        plan = VividMedProcessor.tiny().image_processor.plan(image.size, image.affine)
        moved_row = augmentation.row({**row, "targets": [], "absent": []})
        labels = grounding_labels(
            moved_row,
            [phrase("spleen", label_type="mask")],
            size=(12, 40, 30),
            plan=plan,
            augmentation=augmentation,
        )
        expected = plan.apply_mask(torch.from_numpy(augmentation.array(masks["spleen"]))[None])[0]
        assert torch.equal(labels["masks"][0], expected)


def test_a_box_outside_the_image_is_refused():
    row, _ = labelled_row()
    row["boxes"] = [{"target": "cyst", "box": [0, 0, 0, 13, 40, 30]}]
    plan = VividMedProcessor.tiny().image_processor.plan((12, 40, 30), volume().affine)
    with pytest.raises(VividMedError, match="box of cyst is inverted or leaves the image"):
        grounding_labels(row, [phrase("cyst", label_type="box")], size=(12, 40, 30), plan=plan)


@pytest.mark.parametrize("size", [(1, 4, 5), (3, 1, 5), (3, 4, 1)])
def test_images_of_one_slice_or_column_can_be_mirrored(size):
    array = np.arange(np.prod(size), dtype=np.uint8).reshape(size)
    for flips in itertools.product((False, True), repeat=3):
        moved = torch.from_numpy(Augmentation(flips=flips).array(array))
        axes = tuple(axis for axis in range(3) if flips[axis])
        assert torch.equal(moved, torch.from_numpy(array).flip(axes))
