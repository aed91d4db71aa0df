"""The parts that every preparation is made of: lattices, consensus, splits, resampling, instances, tables."""

from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import Phantom, write_picture
from vividmed.data.preparation.intensity import intensity_limits, to_uint8
from vividmed.data.preparation.labelled_image import LabelledImage
from vividmed.data.preparation.resampling import limited_size, shrink, shrink_mask
from vividmed.data.raw.annotation import LabelMap, MaskFiles, read_labels
from vividmed.data.raw.consensus import consensus_boxes
from vividmed.data.raw.images import read_original
from vividmed.data.raw.instances import remove_specks, split_instances
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.raw.splits import FRACTIONS, assign_splits, split_by_hash
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

PHANTOM = Phantom(values=(1, 2, 3))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SRA", "PIL", "AIR"])
def test_labels_of_any_orientation_come_to_the_grid_of_the_image(tmp_path: Path, axcodes: str):
    image = read_original(PHANTOM.write_image(tmp_path / "image.nii.gz"))
    straight = read_labels(PHANTOM.write_labels(tmp_path / "straight.nii.gz"), image)
    turned = Phantom(values=PHANTOM.values, axcodes=axcodes).write_labels(tmp_path / "turned.nrrd")
    np.testing.assert_array_equal(read_labels(turned, image), straight)


def test_labels_cut_to_a_part_of_the_lattice_are_filled_up(tmp_path: Path):
    import nibabel as nib

    image = read_original(PHANTOM.write_image(tmp_path / "image.nii.gz"))
    path = PHANTOM.write_labels(tmp_path / "labels.nii.gz")
    whole = read_labels(path, image)
    part = nib.load(path).slicer[3:-2, 2:-1, 1:]
    nib.save(part, tmp_path / "part.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "part.nii.gz", image), whole)


def test_labels_between_the_voxels_of_the_image_are_refused(tmp_path: Path):
    image = read_original(PHANTOM.write_image(tmp_path / "image.nii.gz"))
    other = Phantom(values=(1,), spacing=(2.0, 2.0, 4.0)).write_labels(tmp_path / "labels.nii.gz")
    with pytest.raises(VividMedError, match=r"labels.nii.gz: does not lie on the voxel grid of image.nii.gz"):
        read_labels(other, image)


def test_each_value_or_component_is_an_instance_where_asked(tmp_path: Path):
    image = read_original(PHANTOM.write_image(tmp_path / "image.nii.gz"))
    path = PHANTOM.write_labels(tmp_path / "labels.nii.gz")
    merged = list(LabelMap(path, {"rib fracture": range(1, 99)}).masks(image))
    by_value = list(
        LabelMap(path, {"rib fracture": range(1, 99)}, by_value=frozenset({"rib fracture"})).masks(image)
    )
    assert [len(merged), len(by_value)] == [1, 3]
    components = split_instances(merged[0])
    assert sorted(patch.box for patch in components) == sorted(patch.box for patch in by_value)


def test_mask_files_of_a_picture_are_instances(tmp_path: Path):
    image = read_original(write_picture(tmp_path / "a.png", np.full((20, 30), 9, np.uint8)))
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 3:8] = 255
    paths = (
        write_picture(tmp_path / "m0.png", mask),
        write_picture(tmp_path / "m1.png", np.repeat(mask[::-1, :, None], 3, axis=2)),
    )
    patches = list(MaskFiles({"breast lesion": paths}).masks(image))
    assert [patch.box for patch in patches] == [(0, 4, 3, 1, 9, 8), (0, 11, 3, 1, 16, 8)]


def test_specks_of_anatomy_go_and_small_parts_stay():
    mask = np.zeros((30, 40, 40), bool)
    mask[5:25, 5:35, 5:35] = True
    mask[0, 0, 0] = mask[28, 38, 38] = True
    patch = MaskPatch.from_mask("liver", mask)
    assert patch is not None
    assert remove_specks(patch).box == (5, 5, 5, 25, 35, 35)
    small = np.zeros((9, 9, 9), bool)
    small[0, 0, 0] = small[4:7, 4:7, 4:7] = True
    patch = MaskPatch.from_mask("liver", small)
    assert patch is not None
    assert remove_specks(patch).inside.sum() == 28


def test_readers_who_agree_make_one_box_and_others_their_own():
    boxes = consensus_boxes(
        {"a": [(0, 0, 10, 10), (0, 0, 10, 10)], "b": [(1, 1, 11, 11)], "c": [(50, 50, 60, 60)]}
    )
    assert boxes == [(0.5, 0.5, 10.5, 10.5), (50.0, 50.0, 60.0, 60.0)]


def test_boxes_of_one_reader_stay_apart_when_another_overlaps_both():
    boxes = consensus_boxes({"a": [(0, 0, 10, 10), (8, 0, 18, 10)], "b": [(1, 0, 16, 10)]})
    assert len(boxes) == 2


def test_consensus_of_nothing_is_nothing():
    assert consensus_boxes({}) == consensus_boxes({"a": []}) == []


def test_hashed_splits_have_their_shares_and_depend_on_the_seed():
    patients = [f"set:{i}" for i in range(20_000)]
    splits = [split_by_hash(patient) for patient in patients]
    for split, share in FRACTIONS.items():
        assert abs(splits.count(split) / len(splits) - share) < 0.01
    assert splits != [split_by_hash(patient, seed=1) for patient in patients]


def test_official_splits_win_and_the_most_held_out_of_several():
    patients = [("a", "train"), ("b", None), ("a", "test"), ("c", "train"), ("c", None), ("a", "validation")]
    for order in (patients, patients[::-1]):
        assert assign_splits(order) == {"a": "test", "b": split_by_hash("b"), "c": "train"}


def test_sizes_are_limited_in_plane_and_thin_slices_merged():
    assert limited_size((100, 1024, 2048), (1.0, 0.5, 0.5), max_in_plane=512, max_depth=None) == (
        100,
        512,
        1024,
    )
    assert limited_size((600, 512, 512), (0.25, 1.0, 1.0), max_in_plane=512, max_depth=None) == (
        300,
        512,
        512,
    )
    assert limited_size((300, 100, 100), (5.0, 1.0, 1.0), max_in_plane=512, max_depth=128) == (128, 100, 100)


@pytest.mark.parametrize("new", [(5, 7, 6), (10, 4, 11), (3, 12, 11)])
def test_shrinking_keeps_the_mean_and_masks_follow_the_image(new: tuple[int, int, int]):
    generator = np.random.default_rng(0)
    array = generator.random((1, 10, 12, 11)).astype(np.float32)
    small = shrink(array, new)
    assert small.shape == (1, *new)
    np.testing.assert_allclose(small.mean(), array.mean(), rtol=1e-5)
    mask = np.zeros((10, 12, 11), bool)
    mask[2:9, 3:11, 1:9] = generator.random((7, 8, 8)) < 0.9
    patch = MaskPatch.from_mask("liver", mask)
    assert patch is not None
    shrunk = shrink_mask(patch, (10, 12, 11), new)
    whole = np.zeros(new, bool)
    z, y, x = shrunk.corner
    d, h, w = shrunk.inside.shape
    whole[z : z + d, y : y + h, x : x + w] = shrunk.inside
    share = shrink(mask[None].astype(np.float32), new)[0]
    decided = np.abs(share - 0.5) > 1e-5
    np.testing.assert_array_equal(whole[decided], (share >= 0.5)[decided])


def test_a_mask_thinner_than_the_new_voxels_is_not_lost():
    mask = np.zeros((1, 100, 100), bool)
    mask[0, 50, 10:90] = True
    patch = MaskPatch.from_mask("rib fracture", mask)
    assert patch is not None
    assert shrink_mask(patch, (1, 100, 100), (1, 20, 20)).inside.any()


def test_cropping_and_shrinking_keep_places_in_the_patient(tmp_path: Path):
    phantom = Phantom(values=(1, 2), size=(60, 50, 24), spacing=(1.0, 1.0, 0.25))
    image = read_original(phantom.write_image(tmp_path / "image.nii.gz"))
    (patch, _) = LabelMap(phantom.write_labels(tmp_path / "labels.nii.gz"), {"liver": 1, "spleen": 2}).masks(
        image
    )
    box = patch.box
    sheet = (
        LabelledImage(image, (patch,), (("liver", box),))
        .turned()
        .cropped(-500)
        .limited(max_in_plane=23, max_depth=None)
    )
    assert sheet.image.size != image.size
    ((_, moved),) = sheet.boxes
    centre = (np.array(moved[:3]) + np.array(moved[3:]) - 1)[::-1] / 2
    place = (sheet.image.affine @ [*centre, 1])[:3]
    np.testing.assert_allclose(place, phantom.centre_mm(1), atol=max(sheet.image.spacing))


def test_quantiles_ignore_a_padded_rim_where_asked():
    array = np.random.default_rng(0).normal(100, 10, (1, 10, 50, 50)).astype(np.float32)
    array[:, :, :10] = -3024
    image = MedicalImage(array, np.eye(4))
    assert intensity_limits(image)[0] == -3024
    low, high = intensity_limits(image, exclude_minimum=True)
    assert 60 < low < 80
    assert 120 < high < 140
    assert intensity_limits(image, window="lung") == (-1150, 350)
    bits = to_uint8(array, (low, high))
    assert (bits.min(), bits.max()) == (0, 255)
