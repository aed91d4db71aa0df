from pathlib import Path

import pytest

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    image_of,
    prepare_miniature,
    truncate,
    write_channels,
)
from vividmed.data.adapters import get_adapter
from vividmed.data.raw.splits import split_by_hash

CT_TASKS = {
    "msd-task03-liver": ("liver", {"liver": (1, 2), "liver tumor": 2}),
    "msd-task06-lung": ("lung", {"lung cancer": 1}),
    "msd-task07-pancreas": ("pancreas", {"pancreas": (1, 2), "pancreatic tumor": 2}),
    "msd-task08-hepaticvessel": ("hepaticvessel", {"hepatic vessel": 1, "liver tumor": 2}),
    "msd-task09-spleen": ("spleen", {"spleen": 1}),
    "msd-task10-colon": ("colon", {"colon cancer": 1}),
}
MRI_TASKS = {
    "msd-task02-heart": ("la", "MRI", {"left atrium": 1}),
    "msd-task04-hippocampus": (
        "hippocampus",
        "T1 MRI",
        {"anterior hippocampus": 1, "posterior hippocampus": 2},
    ),
}


def _write(origin: Path, key: str, phantom: Phantom) -> Path:
    phantom.write_labels(origin / f"labelsTr/{key}.nii.gz")
    (origin / f"labelsTr/._{key}.nii.gz").write_bytes(b"resource fork")
    return phantom.write_image(origin / f"imagesTr/{key}.nii.gz")


@pytest.mark.parametrize("name", CT_TASKS)
def test_ct_task(name: str, tmp_path: Path):
    prefix, labels = CT_TASKS[name]
    values = tuple(range(1, 3 if len(labels) > 1 else 2))
    shown, empty = Phantom(values=values, axcodes="RAS"), Phantom(values=(), seed=1)
    _write(tmp_path, f"{prefix}_004", shown)
    _write(tmp_path, f"{prefix}_010", empty)
    truncate(_write(tmp_path, f"{prefix}_011", shown))
    prepared = prepare_miniature(name, tmp_path, tmp_path)
    assert_row_shows(prepared.rows[f"{prefix}_004"], shown, labels)
    assert_row_shows(prepared.rows[f"{prefix}_010"], empty, {}, labels)
    assert {row["modality"] for row in prepared.rows.values()} == {"CT"}
    assert list(prepared.result.failed) == [f"{prefix}_011"]
    assert set(get_adapter(name).targets) == set(labels)


@pytest.mark.parametrize("name", MRI_TASKS)
def test_mri_task(name: str, tmp_path: Path):
    prefix, modality, labels = MRI_TASKS[name]
    phantom = Phantom(
        values=tuple(labels.values()), axcodes="LAS", spacing=(1.25, 1.25, 2.7), background=0, body=500
    )
    _write(tmp_path, f"{prefix}_003", phantom)
    row = prepare_miniature(name, tmp_path, tmp_path).rows[f"{prefix}_003"]
    assert row["modality"] == modality
    assert_row_shows(row, phantom, labels)


@pytest.fixture(scope="module")
def prostate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, list[Phantom]]:
    tmp_path = tmp_path_factory.mktemp("prostate")
    origin = tmp_path / "origin"
    t2, adc = (
        Phantom(values=(1, 2), axcodes="RAS", spacing=(0.6, 0.6, 3.6), background=0, body=body, seed=body)
        for body in (300, 900)
    )
    for number in ("00", "04"):
        write_channels(origin / f"imagesTr/prostate_{number}.nii.gz", [t2, adc])
        t2.write_labels(origin / f"labelsTr/prostate_{number}.nii.gz")
    t2.write_image(origin / "imagesTr/prostate_04.nii.gz")  # a file with one sequence only
    return prepare_miniature("msd-task05-prostate", origin, tmp_path), [t2, adc]


def test_both_sequences_of_the_prostate_have_its_zones(prostate: tuple[Prepared, list[Phantom]]):
    prepared, phantoms = prostate
    zones = {"peripheral zone of prostate": 1, "transition zone of prostate": 2}
    rows = [prepared.rows[f"prostate_00_{name}"] for name in ("T2-MRI", "ADC-MRI")]
    assert [row["modality"] for row in rows] == ["T2 MRI", "ADC MRI"]
    for row, phantom in zip(rows, phantoms, strict=True):
        assert_row_shows(row, phantom, zones)
    assert (image_of(rows[0])[0] != image_of(rows[1])[0]).any()


def test_a_file_without_the_second_sequence_fails(prostate: tuple[Prepared, list[Phantom]]):
    prepared, _ = prostate
    assert list(prepared.result.failed) == ["prostate_04"]
    assert len(prepared.rows) == 2


def test_liver_scans_share_patients_and_so_splits_with_lits(tmp_path: Path):
    _write(tmp_path, "liver_17", Phantom())
    prepared = prepare_miniature("msd-task03-liver", tmp_path, tmp_path)
    assert prepared.rows["liver_17"]["patient"] == "lits:17"
    assert prepared.split_of["liver_17"] == split_by_hash("lits:17")
