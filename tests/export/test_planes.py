import numpy as np
import pytest

from tests.fixtures.studies import ORIENTATIONS, oriented_volume, picture, voxel_at
from vividmed.export.planes import display_planes
from vividmed.processing.medical_image import MedicalImage, picture_affine


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_a_point_is_shown_on_its_side_however_the_volume_is_stored(code):
    image = oriented_volume(code)
    left_anterior_superior = voxel_at(image, (-6.0, 7.0, 11.0))
    marked = np.zeros(image.size)
    marked[left_anterior_superior] = 1

    shown = {}
    for plane in display_planes(image):
        cut = plane.cut(marked, left_anterior_superior[plane.axis])
        row, column = np.argwhere(cut)[0]
        shown[plane.name] = (row < cut.shape[0] / 2, column < cut.shape[1] / 2, plane.letters)

    assert shown == {
        "axial": (True, False, "RLAP"),  # anterior on top, the patient's left on the right
        "coronal": (True, False, "RLSI"),
        "sagittal": (True, True, "APSI"),  # anterior on the left
    }


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_boxes_cover_the_voxels_that_they_hold_on_every_slice(code):
    image = oriented_volume(code)
    box = np.array([2, 3, 4, 5, 8, 10])
    mask = np.zeros(image.size, dtype=bool)
    mask[2:5, 3:8, 4:10] = True
    for plane in display_planes(image):
        for index in range(plane.size[0]):
            cut = plane.cut(mask, index)
            assert plane.meets(box, index) == cut.any()
            if cut.any():
                top, left, bottom, right = (int(edge) for edge in plane.rectangle(box))
                assert cut[top:bottom, left:right].all()
                assert cut.sum() == (bottom - top) * (right - left)


def test_slices_keep_their_proportions_in_mm():
    planes = {plane.name: plane for plane in display_planes(oriented_volume("LPS"))}
    assert planes["axial"].extent == pytest.approx((24.0, 20.0))
    assert planes["coronal"].extent == pytest.approx((14 * 2.5, 20.0))
    assert planes["sagittal"].extent == pytest.approx((14 * 2.5, 24.0))


def test_pictures_are_shown_as_stored_and_without_directions():
    image = picture()
    (plane,) = display_planes(image)
    values = np.arange(120 * 100).reshape(1, 120, 100)
    assert plane.letters is None
    assert (plane.cut(values, 0) == values[0]).all()


def test_arrays_without_geometry_are_shown_as_stored_in_three_planes():
    array = np.random.default_rng(1).random((1, 4, 5, 6), dtype=np.float32)
    planes = display_planes(MedicalImage(array, picture_affine()))
    assert [plane.letters for plane in planes] == [None] * 3
    assert (planes[0].cut(array, 1) == array[:, 1]).all()
    assert (planes[1].cut(array, 2) == array[:, :, 2]).all()
    assert (planes[2].cut(array, 3) == array[..., 3]).all()


@pytest.mark.parametrize(
    ("world_size", "name"), [((20, 24, 1), "axial"), ((20, 1, 14), "coronal"), ((1, 24, 14), "sagittal")]
)
def test_a_volume_of_one_slice_is_shown_in_the_plane_of_the_slice(world_size, name):
    (plane,) = display_planes(oriented_volume("LPS", world_size))
    assert plane.name == name
