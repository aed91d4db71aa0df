from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

HEART = {"right ventricle cavity": 1, "myocardium": 2, "left ventricle cavity": 3}
PHANTOMS = {
    "patient001_frame01": Phantom(values=(1, 2, 3), spacing=(1.5, 1.5, 10.0), background=0),
    "patient001_frame12": Phantom(values=(2, 3), spacing=(1.5, 1.5, 10.0), background=0, seed=1),
    "patient101_frame01": Phantom(
        values=(1, 2, 3), spacing=(1.5, 1.5, 10.0), background=0, axcodes="RAS", seed=2
    ),
    "patient102_frame14": Phantom(values=(1, 2, 3), background=0, seed=3),
}


@miniature(
    "acdc",
    truncated={"testing/patient102/patient102_frame14.nii.gz": "patient102_frame14"},
)
def prepared(origin: Path) -> None:
    for key, phantom in PHANTOMS.items():
        patient = key.partition("_")[0]
        folder = origin / ("training" if patient == "patient001" else "testing") / patient
        phantom.write_image(folder / f"{key}.nii.gz")
        phantom.write_labels(folder / f"{key}_gt.nii.gz")
        phantom.write_image(folder / f"{patient}_4d.nii.gz")
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: NOR\n")


def test_the_structures_of_both_frames_lie_at_their_places(prepared: Prepared):
    assert set(prepared.rows) == {"patient001_frame01", "patient001_frame12", "patient101_frame01"}
    for key in ("patient001_frame01", "patient101_frame01"):
        assert_row_shows(prepared.rows[key], PHANTOMS[key], HEART)
        assert prepared.rows[key]["modality"] == "cine MRI"


def test_a_structure_without_a_voxel_is_absent(prepared: Prepared):
    assert_row_shows(
        prepared.rows["patient001_frame12"],
        PHANTOMS["patient001_frame12"],
        {"myocardium": 2, "left ventricle cavity": 3},
        ["right ventricle cavity"],
    )


def test_the_official_test_patients_are_held_out(prepared: Prepared):
    assert prepared.split_of == {
        "patient001_frame01": "train",
        "patient001_frame12": "train",
        "patient101_frame01": "test",
    }
    assert prepared.rows["patient001_frame12"]["patient"] == "acdc:patient001"
