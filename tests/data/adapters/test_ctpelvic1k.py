from pathlib import Path

import nibabel as nib
import numpy as np

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    centre_mm,
    prepare_miniature,
    write_dicom_series,
)
from tests.fixtures.prepared_miniatures import miniature

BONES = {"sacrum": 1, "right hip bone": 2, "left hip bone": 3}
PELVIS = Phantom(values=(1, 2, 3, 4), spacing=(0.75, 0.75, 2.0), sides=((3, 2),))
HALF = Phantom(values=(1, 2), spacing=(0.75, 0.75, 2.0), seed=1)
SUBJECT = "1.3.6.1.4.1.9328.50.4"
NIFTI_IMAGES = {
    "CTPelvic1K_dataset1_mask_mappingback/dataset1_img0001_mask_4label.nii.gz": (
        "BTCV/Abdomen/RawData/Training/img/img0001.nii.gz"
    ),
    "CTPelvic1K_dataset1_mask_mappingback/dataset1_img0061_mask_4label.nii.gz": (
        "BTCV/Abdomen/RawData/Testing/img/img0061.nii.gz"
    ),
    "CTPelvic1K_dataset3_mask_mappingback/dataset3_colon_003_mask_4label.nii.gz": (
        "MSD/Task10_Colon/imagesTs/colon_003.nii.gz"
    ),
    "CTPelvic1K_dataset4_mask_mappingback/dataset4_case_00014_mask_4label.nii.gz": (
        "KiTS19/data/case_00014/imaging.nii.gz"
    ),
    "CTPelvic1K_dataset5_mask_mappingback/dataset5_0507688_Image_mask_4label.nii": (
        "BTCV/Cervix/RawData/Training/img/0507688-Image.nii.gz"
    ),
    "dataset6_mask/dataset6_CLINIC_0001_mask_4label.nii.gz": (
        "CTPelvic1K_dataset6_data/dataset6_CLINIC_0001_data.nii.gz"
    ),
    "dataset6_mask/dataset6_CLINIC_0002_mask_4label.nii.gz": (
        "CTPelvic1K_dataset6_data/dataset6_CLINIC_0002_data.nii.gz"
    ),
}
PATIENTS = {
    "BTCV-Abdomen-0001": "btcv-abdomen:0001",
    "BTCV-Abdomen-0061": "btcv-abdomen:0061",
    "BTCV-Cervix-0507688": "btcv-cervix:0507688",
    "CLINIC_0002": "ctpelvic1k:CLINIC_0002",
    "CLINIC_metal_0000": "ctpelvic1k:CLINIC_metal_0000",
    f"COLONOG-{SUBJECT}.0001": f"ct-colonography:{SUBJECT}.0001",
    "KiTS19-00014": "kits19:00014",
    "MSD-T10-003": "msd-task10-colon:003",
}


def _unplace(path: Path) -> None:
    """Take out of a header how the volume lies in the patient."""
    image = nib.load(path)
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header.set_zooms(image.header.get_zooms())
    nib.save(bare, path)


@miniature(
    "ctpelvic1k",
    truncated={"CTPelvic1K_dataset6_data/dataset6_CLINIC_0001_data.nii.gz": "CLINIC_0001"},
)
def prepared(origin: Path) -> None:
    for mask, image in NIFTI_IMAGES.items():
        PELVIS.write_labels(origin / mask)
        PELVIS.write_image(origin / image)
    _unplace(origin / "dataset6_mask/dataset6_CLINIC_0002_mask_4label.nii.gz")
    _unplace(origin / "CTPelvic1K_dataset6_data/dataset6_CLINIC_0002_data.nii.gz")
    HALF.write_labels(origin / "dataset7_mask/CLINIC_metal_0000_mask_4label.nii.gz")
    HALF.write_image(origin / "CTPelvic1K_dataset7_data/dataset7_CLINIC_metal_0000_data.nii.gz")
    volume = nib.load(PELVIS.write_image(origin.parent / "volume.nii"))
    for subject, studies in (("0001", ["1-CTC-0.4"]), ("0002", ["1-CTC-0.5", "2-CTC-0.6"])):
        PELVIS.write_labels(
            origin
            / f"CTPelvic1K_dataset2_mask_mappingback/dataset2_{SUBJECT}.{subject}_3_16_mask_4label.nii.gz"
        )
        for study in studies:
            folder = origin / f"CT COLONOGRAPHY/{SUBJECT}.{subject}/01-01-2000-{study}"
            for number in ("3", "4", "30"):
                series = folder / f"{number}.000000-Colosupine  1.0  B30f-4.563"
                write_dicom_series(series, np.asarray(volume.dataobj), volume.affine)


def test_every_source_is_found_and_keeps_the_patients_of_its_owner(prepared: Prepared):
    assert {key: row["patient"] for key, row in prepared.rows.items()} == PATIENTS


def test_the_bones_lie_at_their_places_and_lumbar_vertebrae_are_left_out(prepared: Prepared):
    for key in set(PATIENTS) - {"CLINIC_0002", "CLINIC_metal_0000"}:
        assert_row_shows(prepared.rows[key], PELVIS, BONES)


def test_a_bone_without_a_voxel_is_absent(prepared: Prepared):
    assert_row_shows(
        prepared.rows["CLINIC_metal_0000"], HALF, {"sacrum": 1, "right hip bone": 2}, ["left hip bone"]
    )


def test_a_volume_that_its_header_does_not_place_runs_to_the_left_and_back_as_in_dicom(prepared: Prepared):
    row = prepared.rows["CLINIC_0002"]
    for bone, value in BONES.items():
        np.testing.assert_allclose(
            centre_mm(row, bone) - centre_mm(row, "sacrum"),
            PELVIS.centre_mm(value) - PELVIS.centre_mm(1),
            atol=1e-3,
        )


def test_a_mask_that_fits_two_series_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == [f"COLONOG-{SUBJECT}.0002"]


def test_a_mask_with_exchanged_hip_bones_fails(tmp_path: Path):
    mask = "dataset6_mask/dataset6_CLINIC_0001_mask_4label.nii.gz"
    PELVIS.write_image(tmp_path / "in" / NIFTI_IMAGES[mask])
    PELVIS.write_labels(tmp_path / "in" / mask, {1: 1, 2: 3, 3: 2})
    sound = mask.replace("0001", "0002")
    PELVIS.write_image(tmp_path / "in" / NIFTI_IMAGES[sound])
    PELVIS.write_labels(tmp_path / "in" / sound)
    prepared = prepare_miniature("ctpelvic1k", tmp_path / "in", tmp_path)
    assert list(prepared.rows) == ["CLINIC_0002"]
    assert "left structures lie to the right of their counterpart" in prepared.result.failed["CLINIC_0001"]
