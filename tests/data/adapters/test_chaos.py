from pathlib import Path

import nibabel as nib
import numpy as np

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    write_dicom_series,
    write_picture,
)
from tests.fixtures.prepared_miniatures import miniature

MRI = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
LIVER = Phantom(values=(1,), spacing=(0.75, 0.75, 3.0))
ORGANS = Phantom(
    values=(63, 126, 189, 252), background=0, body=300, spacing=(1.5, 1.5, 5.0), sides=((189, 126),)
)
NO_SPLEEN = Phantom(values=(63, 126, 189), background=0, body=300, seed=1, sides=((189, 126),))


def _write(phantom: Phantom, series: Path, ground: Path, files: str, pictures: str, downwards: bool) -> None:
    """One DICOM file and one picture a slice; ``downwards`` gives the top of the body the first name."""
    image = nib.load(phantom.write_image(series.parent / "image.nii"))
    labels = np.asarray(nib.load(phantom.write_labels(series.parent / "labels.nii")).dataobj)
    write_dicom_series(series, np.asarray(image.dataobj), image.affine)
    depth = labels.shape[2]
    for index in range(depth):
        number = depth - 1 - index if downwards else index
        drawn = labels[:, :, index].T.astype(np.uint8)
        (series / f"{index:04d}.dcm").rename(series / files.format(number))
        write_picture(ground / pictures.format(number), drawn * 255 if phantom.values == (1,) else drawn)


@miniature(
    "chaos",
    truncated={"CT/30/Ground/liver_GT_003.png": "CT-30"},
    also_failing=("MR-39-T2SPIR",),
)
def prepared(origin: Path) -> None:
    for patient, downwards in (("1", True), ("2", False), ("30", False)):
        folder = origin / "CT" / patient
        names = "i{:04d},0000b.dcm", "liver_GT_{:03d}.png"
        _write(LIVER, folder / "DICOM_anon", folder / "Ground", *names, downwards)
    for patient, phantom in (("1", ORGANS), ("39", NO_SPLEEN)):
        folder = origin / "MR" / patient
        names = "IMG-0004-{:05d}.dcm", "IMG-0004-{:05d}.png"
        _write(phantom, folder / "T1DUAL/DICOM_anon/InPhase", folder / "T1DUAL/Ground", *names, True)
        _write(phantom, folder / "T2SPIR/DICOM_anon", folder / "T2SPIR/Ground", *names, False)
    (origin / "MR/39/T2SPIR/Ground/IMG-0004-00005.png").unlink()


def test_the_liver_lies_at_its_place_whether_names_run_up_or_down_the_body(prepared: Prepared):
    for key in ("CT-1", "CT-2"):
        assert prepared.rows[key]["modality"] == "CT"
        assert_row_shows(prepared.rows[key], LIVER, {"liver": 1})


def test_both_sequences_show_the_four_organs_on_their_sides(prepared: Prepared):
    for suffix, modality in (("T1DUAL-in", "T1-DUAL (in-phase) MRI"), ("T2SPIR", "T2-SPIR MRI")):
        row = prepared.rows[f"MR-1-{suffix}"]
        assert row["modality"] == modality
        assert row["patient"] == "chaos:MR-1"
        assert_row_shows(row, ORGANS, MRI)


def test_an_organ_without_a_voxel_is_absent(prepared: Prepared):
    present = {target: value for target, value in MRI.items() if target != "spleen"}
    assert_row_shows(prepared.rows["MR-39-T1DUAL-in"], NO_SPLEEN, present, ["spleen"])


def test_a_missing_picture_fails_its_case(prepared: Prepared):
    assert "16 slices but 15 pictures" in prepared.result.failed["MR-39-T2SPIR"]
    assert len(prepared.rows) == 5
