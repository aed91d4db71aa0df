from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    masks_of,
    prepare_miniature,
)
from tests.fixtures.prepared_miniatures import miniature

FRACTURED = Phantom(values=(1, 2, 4))  # the values need not be consecutive
HEALTHY = Phantom(values=(), axcodes="RAS", seed=1)
FLIPPED = Phantom(values=(1,), axcodes="RPI", spacing=(0.7, 0.7, 1.25), seed=2)


def _write(origin: Path, images: str, labels: str, key: str, phantom: Phantom) -> Path:
    phantom.write_labels(origin / labels / f"{key}-label.nii.gz")
    return phantom.write_image(origin / images / f"{key}-image.nii.gz")


@miniature(
    "ribfrac",
    truncated={"Part2/RibFrac301-image.nii.gz": "RibFrac301"},
)
def prepared(origin: Path) -> None:
    _write(origin, "Part1", "Part1", "RibFrac1", FRACTURED)
    _write(origin, "Part1", "Part1", "RibFrac2", HEALTHY)
    _write(origin, "Part2", "Part2", "RibFrac301", FRACTURED)
    _write(origin, "ribfrac-val-images", "ribfrac-val-labels", "RibFrac421", FLIPPED)


def test_every_label_value_is_a_fracture_of_its_own(prepared: Prepared):
    row = prepared.rows["RibFrac1"]
    assert_row_shows(row, FRACTURED, {"rib fracture": (1, 2, 4)})
    voxel = float(np.prod(FRACTURED.spacing))
    volumes = [float(mask.sum()) * voxel for mask in masks_of(row, "rib fracture")]
    assert sorted(volumes) == sorted(FRACTURED.volume_mm3(value) for value in FRACTURED.values)


def test_a_scan_without_fracture_is_a_negative_and_no_failure(prepared: Prepared):
    assert_row_shows(prepared.rows["RibFrac2"], HEALTHY, {}, ["rib fracture"])


def test_the_official_validation_scans_are_held_out(prepared: Prepared):
    assert_row_shows(prepared.rows["RibFrac421"], FLIPPED, {"rib fracture": 1})
    assert prepared.split_of == {"RibFrac1": "train", "RibFrac2": "train", "RibFrac421": "validation"}


def test_the_training_part_alone_can_be_prepared(tmp_path: Path):
    _write(tmp_path, "Part1", "Part1", "RibFrac5", FRACTURED)
    assert prepare_miniature("ribfrac", tmp_path, tmp_path).split_of == {"RibFrac5": "train"}
