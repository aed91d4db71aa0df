from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import Phantom, Prepared, centre_mm, masks_of
from tests.fixtures.prepared_miniatures import miniature

NODE = "mediastinal lymph node"
TWO = Phantom(values=(1, 2), spacing=(0.75, 0.75, 2.5))
NONE = Phantom(values=(), spacing=(0.75, 0.75, 2.5), seed=1)
PHANTOMS = {"0001": TWO, "0002": NONE, "0003": TWO}


@miniature(
    "lnq2023",
    truncated={"train/lnq2023-train-0003-seg.nrrd": "lnq2023-train-0003"},
)
def prepared(origin: Path) -> None:
    for number, phantom in PHANTOMS.items():
        phantom.write_image(origin / f"train/lnq2023-train-{number}-ct.nrrd")
        phantom.write_mask(origin / f"train/lnq2023-train-{number}-seg.nrrd", *phantom.values)


def test_every_annotated_node_is_an_instance_at_its_place(prepared: Prepared):
    row = prepared.rows["lnq2023-train-0001"]
    assert row["targets"] == [NODE]
    sizes = sorted(int(mask.sum()) for mask in masks_of(row, NODE))
    voxel = np.prod(TWO.spacing)
    assert sizes == sorted(round(TWO.volume_mm3(value) / voxel) for value in TWO.values)
    volumes = np.array([TWO.volume_mm3(value) for value in TWO.values])
    centre = volumes @ np.array([TWO.centre_mm(value) for value in TWO.values]) / volumes.sum()
    np.testing.assert_allclose(centre_mm(row, NODE), centre, atol=1e-3)


def test_no_annotated_node_does_not_mean_no_node(prepared: Prepared):
    row = prepared.rows["lnq2023-train-0002"]
    assert row["targets"] == row["absent"] == []
