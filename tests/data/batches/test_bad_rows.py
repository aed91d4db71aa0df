"""One rule for rows that cannot be used, whatever is wrong with them and whatever they are used for."""

import logging

import nibabel as nib
import numpy as np
import pytest
from transformers.utils import logging as transformers_logging

from tests.fixtures.training import make_row, small_processor
from vividmed.data.bad_rows import usable_rows
from vividmed.data.batches.alignment import AlignmentCollator, SegmentationTransform
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.examples import read_images, to_example
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.data.masks import pack_mask
from vividmed.errors import VividMedError

PROCESSOR = small_processor()
VOLUME = nib.Nifti1Image(np.arange(512, dtype=np.uint8).reshape(8, 8, 8), np.eye(4)).to_bytes()
COLLATORS = {
    "vision_language": lambda **options: VividMedCollator(PROCESSOR, max_length=256, **options),
    "localization": lambda **options: GroundedCollator(
        PROCESSOR, transform=GroundingTransform(seed=0), max_length=256, **options
    ),
    "alignment": lambda **options: AlignmentCollator(
        SegmentationTransform(image_processor=PROCESSOR.image_processor), **options
    ),
}


def damaged(offset, *values):
    content = bytearray(VOLUME)
    content[offset : offset + len(values)] = values
    return [{"bytes": bytes(content), "path": None}]


BROKEN = {
    "no volumes": {"volumes": None},
    "no images": {"images": None},
    "null image": {"images": [None]},
    "no image at all": {"images": [], "volumes": []},
    "cut picture": {"images": [{"bytes": b"\x89PNG\r\n", "path": None}]},
    "missing file": {"images": [{"bytes": None, "path": "/nowhere/a.png"}]},
    "nowhere": {"images": [{"bytes": None, "path": None}]},
    "negative size": {"images": [], "volumes": damaged(42, 0xFF, 0xFF)},
    "unknown type": {"images": [], "volumes": damaged(70, 0xFF, 0x7F)},
    "no magic": {"images": [], "volumes": damaged(344, 0, 0, 0)},
    "NaN affine": {"images": [], "volumes": damaged(280, *[0xFF] * 48)},
    "cut volume": {"images": [], "volumes": [{"bytes": VOLUME[:600], "path": None}]},
    "text": {"images": [], "volumes": [{"bytes": b"<html>", "path": None}]},
}
BROKEN_TEXTS = {
    "vision_language": {"messages": [{"messages": None}, {"messages": []}, {"messages": [{"role": "user"}]}]},
    "localization": {"targets": [{"targets": None}, {"targets": ["unheard of"]}, {"masks": None}]},
    "alignment": {"targets": [{"targets": None}, {"absent": ["unheard of"]}, {"masks": None}]},
}


def sound_row(stage, number):
    row = {**make_row(number), "id": f"row-{number}", "index": number, "epoch": 0}
    if stage == "vision_language":
        return row
    del row["messages"]
    size = read_images(row)[0].size
    mask = pack_mask("liver", np.ones(size, bool))
    return row | {"targets": ["liver"], "absent": ["spleen"], "masks": [mask], "boxes": [], "incomplete": []}


def cases():
    for stage in COLLATORS:
        changes = [*BROKEN.values(), *(change for group in BROKEN_TEXTS[stage].values() for change in group)]
        names = [*BROKEN, *(f"text {i}" for i in range(3))]
        yield from (
            pytest.param(stage, change, id=f"{stage}: {name}")
            for name, change in zip(names, changes, strict=True)
        )


@pytest.mark.parametrize(("stage", "change"), list(cases()))
def test_row_that_cannot_be_used_is_named_and_stops_or_is_skipped_as_asked(stage, change, caplog):
    rows = [sound_row(stage, 0), {**sound_row(stage, 1), **change, "id": "broken"}]
    with pytest.raises(VividMedError, match="row broken: ") as caught:
        COLLATORS[stage]()(rows)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("row broken") == 1
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        batch = COLLATORS[stage](on_bad_sample="skip")(rows)
    transformers_logging.disable_propagation()
    assert batch["sample_ids"] == ["row-0"]
    assert batch["num_samples"] == 1
    assert "skipped: row broken: " in caplog.text


@pytest.mark.parametrize("stage", COLLATORS)
def test_a_spare_row_without_labels_stands_in_for_a_batch_without_a_usable_row(stage):
    broken = {**sound_row(stage, 1), "volumes": None, "id": "broken"}
    collate = COLLATORS[stage](on_bad_sample="skip", spare_rows=[broken, sound_row(stage, 2)])
    batch = collate([broken])
    assert batch["sample_ids"] == ["row-2"]
    assert batch["num_samples"] == 0
    assert batch["size"].supervised_tokens == 0
    with pytest.raises(VividMedError, match="no row of a whole batch can be used"):
        COLLATORS[stage](on_bad_sample="skip")([broken])


def test_volumes_stored_as_nifti_2_are_read():
    second = nib.Nifti2Image(
        np.arange(512, dtype=np.uint8).reshape(8, 8, 8), np.diag([1, 1, 3, 1])
    ).to_bytes()
    (image,) = read_images({"images": [], "volumes": [{"bytes": second, "path": None}]})
    assert image.size == (8, 8, 8)
    assert image.spacing == (3, 1, 1)
    np.testing.assert_array_equal(image.array[0], np.arange(512, dtype=np.uint8).reshape(8, 8, 8).T)


def test_held_out_rows_that_cannot_be_used_are_named_or_left_out_of_samples():
    good, broken = sound_row("vision_language", 0), {**sound_row("vision_language", 1), "images": [None]}
    rows = [good, {**broken, "id": "broken"}, sound_row("vision_language", 2)]
    assert usable_rows(rows, [0, 2], to_example, on_bad_sample="error") == [rows[0], rows[2]]
    with pytest.raises(VividMedError, match="row broken: "):
        usable_rows(rows, [0, 1], to_example, on_bad_sample="error")
    assert usable_rows(rows, [0, 1, 2], to_example, on_bad_sample="skip") == [rows[0], rows[2]]
