from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.taxonomy import Taxonomy

SHOWN = {
    "kidney_left": "left kidney",
    "kidney_cyst_left": "left kidney cyst",
    "vertebrae_S1": "S1 vertebra",
    "rib_right_12": "right rib 12",
    "iliac_vena_left": "left common iliac vein",
    "lung_middle_lobe_right": "right lung middle lobe",
    "small_bowel": "small intestine",
    "urinary_bladder": "bladder",
}
CLASSES = sorted(target.ts_v2_key for target in Taxonomy.load() if target.ts_v2_key)
TARGETS = {target.name for target in Taxonomy.load() if target.ts_v2_key}
PHANTOMS = {
    "s0000": Phantom(values=tuple(range(1, 9)), axcodes="RAS", spacing=(1.5, 1.5, 1.5)),
    "s0004": Phantom(values=(1, 2), axcodes="LPS", spacing=(1.5, 1.5, 1.5), seed=1),
    "s0011": Phantom(values=(1,), axcodes="RAS", spacing=(1.5, 1.5, 1.5), seed=2),
}
SPLITS = {"s0000": "train", "s0004": "val", "s0011": "test", "s0860": "train"}


def _write(origin: Path, key: str, phantom: Phantom) -> None:
    """All 117 files; the structures of the phantom are the first of ``SHOWN``."""
    phantom.write_image(origin / key / "ct.nii.gz")
    empty = phantom.write_mask(origin / key / "segmentations/empty.nii.gz")
    content = empty.read_bytes()
    empty.unlink()
    for name in CLASSES:
        (origin / key / f"segmentations/{name}.nii.gz").write_bytes(content)
    for name, value in zip(SHOWN, phantom.values, strict=False):
        phantom.write_mask(origin / key / f"segmentations/{name}.nii.gz", value)


@miniature(
    "totalsegmentator",
    truncated={"s0860/ct.nii.gz": "s0860"},
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        _write(origin, key, phantom)
    PHANTOMS["s0011"].write_image(origin / "s0860/ct.nii.gz")
    (origin / "s0860/segmentations").mkdir()
    rows = [{"image_id": key, "age": "", "gender": "m", "split": split} for key, split in SPLITS.items()]
    write_table(origin / "meta.csv", rows, delimiter=";")


@pytest.mark.parametrize("key", PHANTOMS)
def test_structures_lie_at_their_places_and_all_others_are_absent(prepared: Prepared, key: str):
    present = dict(zip(SHOWN.values(), PHANTOMS[key].values, strict=False))
    assert len(TARGETS) == 117
    assert_row_shows(prepared.rows[key], PHANTOMS[key], present, TARGETS - set(present))


def test_isotropic_scans_come_in_axial_slices_from_the_feet(prepared: Prepared):
    (volume,) = prepared.rows["s0004"]["volumes"]
    assert (np.abs(volume.affine[2, :3]) > 0).tolist() == [False, False, True]


def test_official_splits_are_kept(prepared: Prepared):
    assert prepared.split_of == {"s0000": "train", "s0004": "validation", "s0011": "test"}
