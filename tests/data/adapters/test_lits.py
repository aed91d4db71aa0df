from pathlib import Path

import nibabel as nib

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

PHANTOMS = {
    "1/0": Phantom(values=(1, 2), spacing=(0.75, 0.75, 1.0)),
    "1/1": Phantom(values=(1,), axcodes="RAS", seed=1),
    "2/48": Phantom(values=(1, 2), seed=2),
    "2/53": Phantom(values=(1, 2), seed=3),
    "2/130": Phantom(values=(1, 2), seed=4),
}


@miniature(
    "lits",
    truncated={"Training Batch 2/volume-130.nii": "130"},
    also_failing=("53",),
)
def prepared(origin: Path) -> None:
    for place, phantom in PHANTOMS.items():
        batch, _, number = place.partition("/")
        folder = origin / f"Training Batch {batch}"
        phantom.write_image(folder / f"volume-{number}.nii")
        label = phantom.write_labels(folder / f"segmentation-{number}.nii")
        if number in ("48", "53"):  # a header that places the labels elsewhere
            labels = nib.load(label)
            labels.affine[0, 3] += 100
            nib.save(nib.Nifti1Image(labels.get_fdata().astype("uint8"), labels.affine), label)


def test_the_tumour_is_part_of_the_liver(prepared: Prepared):
    assert_row_shows(prepared.rows["0"], PHANTOMS["1/0"], {"liver": (1, 2), "liver tumor": 2})


def test_a_liver_without_tumour_has_it_absent(prepared: Prepared):
    assert_row_shows(prepared.rows["1"], PHANTOMS["1/1"], {"liver": 1}, ["liver tumor"])


def test_labels_whose_header_is_known_to_be_wrong_are_taken_voxel_by_voxel(prepared: Prepared):
    assert_row_shows(prepared.rows["48"], PHANTOMS["2/48"], {"liver": (1, 2), "liver tumor": 2})


def test_other_labels_that_lie_elsewhere_fail(prepared: Prepared):
    assert set(prepared.rows) == {"0", "1", "48"}
    assert prepared.rows["0"]["patient"] == "lits:0"
