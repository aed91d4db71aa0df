"""Lengths measured from headers, also of rows that cannot be read."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset, LargeList, Value

from tests.fixtures.training import MAX_LENGTH, make_rows, small_processor
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.sampling.lengths import measure_lengths

MESSAGES = [{"role": "user", "content": "Report."}, {"role": "assistant", "content": "Normal."}]
# Index (x, y, z) of the array to RAS+ mm; the body is cut along its thickest axis.
PLANES = {
    "axial": np.diag([1.0, 1.0, 5.0, 1.0]),
    "sagittal": np.array([[0, 0, 5.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    "sagittal, slices first": np.diag([5.0, 1.0, 1.0, 1.0]),
    "coronal": np.array([[1, 0, 0, 0], [0, 0, 5.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]),
    "flipped": np.diag([-1.0, 1.0, -5.0, 1.0]),
}


def volume_row(content, **changes):
    return {"images": [], "volumes": [{"bytes": content, "path": None}], "messages": MESSAGES} | changes


def nifti(affine, *, second=False):
    size = (6, 24, 48) if affine[0, 0] == 5 else (48, 24, 6)
    array = np.arange(np.prod(size), dtype=np.uint8).reshape(size)
    return (nib.Nifti2Image if second else nib.Nifti1Image)(array, affine).to_bytes()


def prepared_length(row, processor):
    batch = VividMedCollator(processor, max_length=MAX_LENGTH)([row])
    return batch["input_ids"].shape[1]


def row_length(row, processor):
    (length,) = measure_lengths(Dataset.from_list([row]), processor)
    return length


def test_lengths_from_headers_are_those_of_the_prepared_rows():
    rows, processor = make_rows(range(8)), small_processor()
    prepared = [prepared_length(row, processor) for row in rows]
    assert measure_lengths(rows, processor) == prepared
    assert len(set(prepared)) > 2


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("form", ["NIfTI-1", "NIfTI-2", "compressed"])
def test_volumes_are_measured_as_they_will_be_oriented(plane, form):
    content = nifti(PLANES[plane], second=form == "NIfTI-2")
    row = volume_row(gzip.compress(content) if form == "compressed" else content)
    processor = small_processor()
    assert row_length(row, processor) == prepared_length(row, processor)


def damaged(offset, *values):
    content = bytearray(nifti(PLANES["axial"]))
    content[offset : offset + len(values)] = values
    return bytes(content)


@pytest.mark.parametrize(
    "row",
    [
        volume_row(damaged(40, 0xFF, 0xFF)),
        volume_row(damaged(42, 0xFF, 0xFF)),
        volume_row(damaged(70, 0xFF, 0x7F)),
        volume_row(nifti(PLANES["axial"])[:100]),
        volume_row(gzip.compress(nifti(PLANES["axial"]))[:30]),
        volume_row(b""),
        volume_row(None),
        volume_row(None, volumes=[{"bytes": None, "path": "/nowhere/image.nii"}]),
        volume_row(None, volumes=None),
        volume_row(None, volumes=[None]),
        volume_row(None, volumes=[], images=None),
        volume_row(None, volumes=[], images=[{"bytes": b"GIF89a", "path": None}]),
        volume_row(None, volumes=[], images=[{"bytes": None, "path": None}, None]),
    ],
)
def test_images_that_cannot_be_read_count_as_nothing(row):
    processor = small_processor()
    assert row_length(row, processor) == row_length({**row, "images": [], "volumes": []}, processor)


@pytest.mark.parametrize(
    "texts",
    [
        {"messages": None},
        {"messages": [None]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {"report": None},
        {"targets": None, "absent": None},
    ],
)
def test_texts_that_are_null_count_as_nothing(texts):
    assert row_length({"images": [], "volumes": [], **texts}, small_processor()) == 2


def test_texts_of_several_rows_stay_with_their_rows():
    processor = small_processor()
    texts = [["lung", None, "left  lung"], None, [], [""], ["heart", " and ", "lungs "]]
    localization = Dataset.from_dict(
        {"images": [[]] * 5, "targets": texts, "absent": [None, ["liver"], [], [], []]}
    )
    conversations = Dataset.from_list(
        [
            {"images": [], "messages": content and [{"role": "user", "content": text} for text in content]}
            for content in texts
        ]
    )
    expected = [
        2
        + sum(
            1 + len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in row or ()
            if text is not None
        )
        for row in texts
    ]
    assert measure_lengths(conversations, processor) == expected
    assert measure_lengths(conversations.select([4, 0]), processor) == [expected[4], expected[0]]
    expected[1] += row_length({"images": [], "report": "liver"}, processor) - 2
    assert measure_lengths(localization, processor) == expected


def test_texts_in_large_arrow_types_count_as_well():
    messages = LargeList({"role": Value("large_string"), "content": Value("large_string")})
    large = Dataset.from_dict({"images": [[]], "messages": [MESSAGES]}).cast_column("messages", messages)
    processor = small_processor()
    assert (
        measure_lengths(large, processor)
        == [row_length({"images": [], "messages": MESSAGES}, processor)]
        > [2]
    )
