from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from vividmed.data.batches.alignment import CropSettings, SegmentationTransform
from vividmed.data.batches.augmentation import AugmentationSettings
from vividmed.data.batches.grounding import GroundingTransform
from vividmed.data.conversations import build_conversation
from vividmed.data.conversations.settings import ConversationSettings, LocalizationSettings
from vividmed.data.masks import bounding_box, pack_mask
from vividmed.data.schema import validate_row
from vividmed.processing.geometry import plan_resize
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor

SIZE = (8, 32, 32)
FLIP = AugmentationSettings(flip=1.0, rotate=0.0, intensity=0.0)
SURE = ConversationSettings(localization=LocalizationSettings(grounding=1.0, mark_absent=1.0, modality=0.0))


def cube(corner, size):
    mask = np.zeros(SIZE, dtype=bool)
    mask[tuple(slice(low, low + n) for low, n in zip(corner, size, strict=True))] = True
    return mask


LEFT, NODULE = cube((2, 8, 2), (4, 12, 8)), cube((3, 10, 4), (2, 4, 4))


def volume():
    values = np.random.default_rng(0).normal(100, 5, SIZE) + 200 * LEFT
    return nib.Nifti1Image(values.transpose(2, 1, 0).astype(np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))


def common():
    return {
        "id": "r",
        "patient": "p",
        "images": [],
        "volumes": [volume()],
        "modality": "CT",
        "source": "made up",
        "licence": "none",
    }


def localization_row(**changes):
    located = [("left lung", LEFT), ("lung nodule", NODULE)]
    row = {
        **common(),
        "targets": [name for name, _ in located],
        "absent": ["heart"],
        "masks": [dict(pack_mask(name, mask)) for name, mask in located],
        "incomplete": [],
        "boxes": [{"target": name, "box": list(bounding_box(mask))} for name, mask in located],
        "index": 3,
        "epoch": 1,
    }
    row |= changes
    validate_row("localization", row)
    return row


def report_row(**changes):
    row = {
        **common(),
        "report": "A <p>nodule</p> lies in the <p>left lung</p>.",
        "phrases": [
            {"text": "nodule", "start": 2, "end": 8, "targets": ["lung nodule"]},
            {"text": "left lung", "start": 21, "end": 30, "targets": ["left lung"]},
        ],
        "masks": [dict(pack_mask("left lung", LEFT))],
        "incomplete": [],
        "boxes": [{"target": "lung nodule", "box": list(bounding_box(NODULE))}],
        "index": 3,
        "epoch": 1,
    }
    row |= changes
    validate_row("grounded_report", row)
    return row


def transform(**settings):
    def draw_conversation(row_kind, row, generator):
        return build_conversation(row_kind, row, generator=generator, settings=SURE)

    return GroundingTransform(**{"seed": 0, "draw_conversation": draw_conversation, **settings})


def plan_of(example):
    image = example.images[0]
    return plan_resize(
        image.size,
        affine=image.affine,
        oriented=False,
        patch_size=(4, 16, 16),
        pool_size=(1, 1, 1),
        max_image_tokens=8,
        max_slice_tokens=2,
    )


def labels_of(example, phrases=99):
    return example.labels(plan_of(example), phrases)


def place(example, target):
    """Which phrase shows a target."""
    return [phrase.targets for phrase in example.conversation.phrases].index((target,))


def box_of(example, target):
    """The box of a target's phrase, of which there is one."""
    labels = labels_of(example)
    at = labels["box_phrases"].tolist().index(place(example, target))
    return labels["boxes"].split(labels["box_counts"].tolist())[at][0]


def test_phrase_with_masks_and_boxes_is_labelled_with_both():
    example = transform()(localization_row())
    labels = labels_of(example)
    phrases = example.conversation.phrases
    assert labels["mask_phrases"].tolist() == labels["box_phrases"].tolist() == [0, 1, 2]
    counts = dict(zip([phrase.targets[0] for phrase in phrases], labels["box_counts"].tolist(), strict=True))
    assert counts == {"left lung": 1, "lung nodule": 1, "heart": 0}
    heart = labels["masks"][place(example, "heart")]
    assert not heart.any()


def test_what_was_not_drawn_of_an_incomplete_target_is_ignored():
    example = transform()(localization_row(incomplete=["lung nodule"]))
    labels = labels_of(example)
    nodule, lung = place(example, "lung nodule"), place(example, "left lung")
    assert torch.equal(labels["ignore"][nodule], ~labels["masks"][nodule])
    assert not labels["ignore"][lung].any()
    assert labels["exhaustive"].tolist() == [phrase != nodule for phrase in labels["box_phrases"].tolist()]


def test_each_phrase_of_a_report_gets_the_labels_of_its_own_target():
    example = transform()(report_row())
    labels = labels_of(example)
    assert labels["box_phrases"].tolist() == [0]
    assert labels["mask_phrases"].tolist() == [1]
    depth, height, width = SIZE
    (z0, y0, x0, z1, y1, x1) = bounding_box(NODULE)
    centre = [(z0 + z1) / 2 / depth, (y0 + y1) / 2 / height, (x0 + x1) / 2 / width]
    torch.testing.assert_close(labels["boxes"][0, :3], torch.tensor(centre))


def test_phrases_cut_by_truncation_have_no_label():
    example = transform()(report_row())
    assert set(labels_of(example, phrases=1)) == {"box_phrases", "box_counts", "boxes"}
    assert labels_of(example, phrases=0) == {}


def test_mirroring_moves_image_masks_boxes_and_names_together():
    plain, mirrored = transform()(localization_row()), transform(augmentation=FLIP)(localization_row())
    assert np.array_equal(mirrored.images[0].array, plain.images[0].array[:, ::-1, ::-1, ::-1])
    text = " ".join(turn["content"] for turn in mirrored.messages).lower()
    assert "left" not in text
    assert "right" in text
    before = labels_of(plain)["masks"][place(plain, "left lung")]
    after = labels_of(mirrored)["masks"][place(mirrored, "right lung")]
    assert before.any()
    assert torch.equal(after, before.flip(0, 1, 2))
    box, moved = box_of(plain, "lung nodule"), box_of(mirrored, "lung nodule")
    torch.testing.assert_close(moved, torch.cat([1 - box[:3], box[3:]]))


def test_draws_depend_on_seed_epoch_and_index_only():
    augmentation = AugmentationSettings()
    one = transform(augmentation=augmentation)(localization_row())
    again = transform(augmentation=augmentation)(localization_row())
    assert one.messages == again.messages
    assert one.augmentation == again.augmentation
    drawn = {
        transform(augmentation=augmentation)(localization_row(epoch=epoch)).augmentation for epoch in range(9)
    }
    assert len(drawn) > 2


def test_rows_for_evaluation_are_neither_moved_nor_equalised():
    for row in (localization_row(epoch=None), report_row(epoch=None)):
        example = transform(augmentation=FLIP, equalize=1.0)(row)
        assert not example.changes_intensity
        assert np.array_equal(example.images[0].array[0], volume().get_fdata().transpose(2, 1, 0))


def test_reports_are_equalised_but_never_moved():
    example = transform(augmentation=FLIP, equalize=1.0)(report_row())
    assert example.changes_intensity
    assert example.augmentation.flips == (False, False, False)
    assert example.messages[-1]["content"] == "A<p> nodule</p> lies in the<p> left lung</p>."


PROCESSOR = VividMedImageProcessor(
    patch_size=(4, 16, 16), pool_size=(1, 1, 1), max_image_tokens=32, max_slice_tokens=2
)


def test_alignment_asks_for_present_targets_first_and_fills_up_with_absent_ones():
    example = SegmentationTransform(image_processor=PROCESSOR, max_present=1, max_targets=2)(
        localization_row()
    )
    assert example["targets"][0] in ("left lung", "lung nodule")
    assert example["targets"][1] == "heart"
    labels = example["labels"]
    assert labels["mask_phrases"].tolist() == [0, 1]
    assert labels["masks"].shape[1:] == example["values"].shape[1:]
    assert labels["masks"][0].any()
    assert not labels["masks"][1].any()


def test_alignment_on_boxes_gives_every_target_all_its_boxes():
    example = SegmentationTransform(image_processor=PROCESSOR, label_type="box")(localization_row(epoch=None))
    assert example["targets"] == ["left lung", "lung nodule", "heart"]
    assert example["labels"]["box_counts"].tolist() == [1, 1, 0]
    assert "masks" not in example["labels"]


@pytest.mark.parametrize("epoch", range(4))
def test_crop_shows_its_masks_in_place_and_makes_targets_outside_absent(epoch):
    size = (8, 96, 96)
    mask = np.zeros(size, dtype=bool)
    mask[2:6, 5:20, 70:90] = True
    image = nib.Nifti1Image((300 * mask).transpose(2, 1, 0).astype(np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    row = localization_row(
        volumes=[image],
        targets=["left lung"],
        masks=[dict(pack_mask("left lung", mask))],
        boxes=[],
        epoch=epoch,
    )
    crops = CropSettings(whole=0.0)
    small = VividMedImageProcessor(
        patch_size=(4, 16, 16), pool_size=(1, 1, 1), max_image_tokens=18, max_slice_tokens=2
    )
    example = SegmentationTransform(image_processor=small, crops=crops, seed=epoch)(row)
    drawn = example["labels"]["masks"][example["targets"].index("left lung")]
    bright = example["values"][0] > 0.5
    assert torch.equal(drawn, bright) or (drawn ^ bright).float().mean() < 0.02
    whole = SegmentationTransform(image_processor=small, crops=replace(crops, whole=1.0))(row)
    assert (whole["labels"]["masks"][0] ^ (whole["values"][0] > 0.5)).float().mean() < 0.02
