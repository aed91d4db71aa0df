from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

CAPTIONS = {
    "ROCOv2_2023_train_000001": "CT of the chest,\nshowing a nodule (arrow).",
    "ROCOv2_2023_train_000002": "Ultrasound and MRI of the same knee.",
    "ROCOv2_2023_train_000003": "Figure 1",
    "ROCOv2_2023_train_000004": "Chest radiograph on admission.",
}
CONCEPTS = {
    "ROCOv2_2023_train_000001": "C0040405;C0817096",
    "ROCOv2_2023_train_000002": "C0041618;C0024485",
    "ROCOv2_2023_train_000003": "C0040405",
}


@miniature(
    "rocov2",
    truncated={"train/ROCOv2_2023_train_000004.jpg": "ROCOv2_2023_train_000004"},
)
def prepared(origin: Path) -> None:
    for seed, key in enumerate(CAPTIONS):
        write_picture(origin / f"train/{key}.jpg", picture(seed=seed))
    write_table(
        origin / "train_captions.csv", [{"ID": key, "Caption": text} for key, text in CAPTIONS.items()]
    )
    write_table(
        origin / "train_concepts_manual.csv", [{"ID": key, "CUIs": cuis} for key, cuis in CONCEPTS.items()]
    )
    write_picture(origin / "valid/ROCOv2_2023_valid_000001.jpg", np.stack([picture()] * 3, axis=-1))
    rows = [{"ID": "ROCOv2_2023_valid_000001", "Caption": "Angiography of the aorta."}]
    write_table(origin / "valid_captions.csv", rows)


def test_captions_are_one_line(prepared: Prepared):
    row = prepared.rows["ROCOv2_2023_train_000001"]
    assert row["kind"] == "caption"
    assert row["messages"][1] == {
        "role": "assistant",
        "content": "CT of the chest, showing a nodule (arrow).",
    }
    assert row["images"][0].size == (40, 48)


def test_the_modality_is_what_the_concepts_name_and_empty_for_several_or_none(prepared: Prepared):
    assert {key: row["modality"] for key, row in prepared.rows.items()} == {
        "ROCOv2_2023_train_000001": "CT",
        "ROCOv2_2023_train_000002": None,
        "ROCOv2_2023_valid_000001": None,
    }


def test_parts_are_the_splits(prepared: Prepared):
    assert prepared.split_of == {
        "ROCOv2_2023_train_000001": "train",
        "ROCOv2_2023_train_000002": "train",
        "ROCOv2_2023_valid_000001": "validation",
    }


def test_a_short_caption_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["ROCOv2_2023_train_000003"]
