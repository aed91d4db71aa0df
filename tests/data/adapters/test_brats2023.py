from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows, prepare_miniature
from tests.fixtures.prepared_miniatures import miniature

SEQUENCES = {"t1c": "T1CE MRI", "t1n": "T1 MRI", "t2f": "T2-FLAIR MRI", "t2w": "T2 MRI"}
TUMOUR = Phantom(values=(1, 2, 3), background=0, body=400)
HEALTHY = Phantom(values=(), background=0, body=400, seed=1)
EXPECTED = {
    "glioma": (1, 3),
    "necrotic tumor core": 1,
    "enhancing tumor": 3,
    "peritumoral edema": 2,
}


@miniature(
    "brats2023-gli",
    truncated={
        "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t2w.nii.gz": "BraTS-GLI-00003-000"
    },
)
def prepared(origin: Path) -> None:
    cases = {
        "BraTS-GLI-00000-000": TUMOUR,
        "BraTS-GLI-00000-001": TUMOUR,
        "BraTS-GLI-00002-000": HEALTHY,
        "BraTS-GLI-00003-000": TUMOUR,
    }
    for key, phantom in cases.items():
        folder = origin / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData" / key
        for suffix in SEQUENCES:
            phantom.write_image(folder / f"{key}-{suffix}.nii.gz")
        phantom.write_labels(folder / f"{key}-seg.nii.gz")


def test_each_sequence_is_a_row_with_the_same_masks(prepared: Prepared):
    rows = {key: row for key, row in prepared.rows.items() if key.startswith("BraTS-GLI-00000-000")}
    assert sorted(row["modality"] for row in rows.values()) == sorted(SEQUENCES.values())
    for row in rows.values():
        assert_row_shows(row, TUMOUR, EXPECTED)


def test_a_case_without_tumour_has_all_targets_absent(prepared: Prepared):
    assert_row_shows(prepared.rows["BraTS-GLI-00002-000_T1-MRI"], HEALTHY, {}, EXPECTED)


def test_time_points_of_a_patient_share_patient_and_split(prepared: Prepared):
    rows = {key: row for key, row in prepared.rows.items() if key.startswith("BraTS-GLI-00000")}
    assert len(rows) == 8
    assert {row["patient"] for row in rows.values()} == {"brats2023-gli:00000"}
    assert len({prepared.split_of[key] for key in rows}) == 1


def test_a_case_with_one_truncated_sequence_has_no_row(prepared: Prepared):
    assert not any(key.startswith("BraTS-GLI-00003") for key in prepared.rows)


@pytest.mark.parametrize(
    ("name", "prefix", "whole", "first"),
    [
        ("brats2023-men", "BraTS-MEN", "meningioma", "non-enhancing tumor core"),
        ("brats2023-met", "BraTS-MET", "brain metastasis", "non-enhancing tumor core"),
        ("brats2023-ped", "BraTS-PED", "pediatric glioma", "non-enhancing tumor core"),
        ("brats2023-ssa", "BraTS-SSA", "glioma", "necrotic tumor core"),
    ],
)
def test_every_challenge_names_its_own_tumour(tmp_path: Path, name: str, prefix: str, whole: str, first: str):
    cases = {f"{prefix}-00001-000": TUMOUR, f"{prefix}-00002-000": HEALTHY}
    for key, phantom in cases.items():
        folder = tmp_path / "origin/TrainingData" / key
        for suffix in SEQUENCES:
            phantom.write_image(folder / f"{key}-{suffix}.nii.gz")
        phantom.write_labels(folder / f"{key}-seg.nii.gz")
    prepared = prepare_miniature(name, tmp_path / "origin", tmp_path)
    expected = {whole: (1, 3), first: 1, "enhancing tumor": 3, "peritumoral edema": 2}
    assert_row_shows(prepared.rows[f"{prefix}-00001-000_T2-MRI"], TUMOUR, expected)
    assert_row_shows(prepared.rows[f"{prefix}-00002-000_T2-MRI"], HEALTHY, {}, expected)
