import numpy as np
import pytest
import torch

from vividmed.errors import VividMedError
from vividmed.processing.boxes import (
    boxes_to_mm,
    clip_boxes,
    corners_to_fractions,
    fractions_to_corners,
    mask_to_box,
    round_boxes,
    validate_boxes,
)

SIZE = (10, 20, 40)
BOXES = torch.tensor([[0, 0, 0, 10, 20, 40], [2, 5, 10, 3, 15, 30]])


def test_corners_become_centre_and_size_and_return():
    fractions = corners_to_fractions(BOXES, SIZE)
    torch.testing.assert_close(fractions[0], torch.tensor([0.5, 0.5, 0.5, 1, 1, 1], dtype=torch.float64))
    torch.testing.assert_close(
        fractions[1], torch.tensor([0.25, 0.5, 0.5, 0.1, 0.5, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(fractions_to_corners(fractions, SIZE), BOXES.double())


def test_boxes_are_cut_to_the_image():
    assert clip_boxes(torch.tensor([[-1.0, 2, 3, 12, 30, 4]]), SIZE).tolist() == [[0, 2, 3, 10, 20, 4]]


def test_rounded_boxes_keep_a_voxel_inside_the_image():
    rounded = round_boxes(torch.tensor([[3.4, 9.6, 39.9, 3.45, 12.2, 45.0], [-3.0, 0, 0, -2.0, 1, 1]]), SIZE)
    assert rounded.tolist() == [[3, 10, 39, 4, 12, 40], [0, 0, 0, 1, 1, 1]]
    validate_boxes(rounded, SIZE)


def test_millimetres_go_through_the_affine_with_voxel_faces():
    affine = np.array([[-2.0, 0, 0, 100], [0, 3, 0, -50], [0, 0, 5, 10], [0, 0, 0, 1]])
    # One voxel at index (x, y, z) = (4, 2, 1), centred at (92, -44, 15) mm.
    box = boxes_to_mm(torch.tensor([1, 2, 4, 2, 3, 5]), affine)
    assert box.tolist() == [91, -45.5, 12.5, 93, -42.5, 17.5]


def test_the_box_of_a_mask_is_half_open():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[2:4, 5, 7:9] = True
    assert mask_to_box(mask).tolist() == [2, 5, 7, 4, 6, 9]
    with pytest.raises(VividMedError, match="empty mask"):
        mask_to_box(torch.zeros(SIZE, dtype=torch.bool))


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ([5, 0, 0, 2, 4, 4], "inverted"),
        ([5, 0, 0, 5, 4, 4], "inverted or empty"),
        ([0, 0, 0, 11, 4, 4], "leaves the image"),
        ([-1, 0, 0, 4, 4, 4], "leaves the image"),
    ],
)
def test_wrong_boxes_are_named(box, problem):
    with pytest.raises(VividMedError, match=rf"row 3: boxes\[1\].*{problem}"):
        validate_boxes(torch.tensor([[0, 0, 0, 1, 1, 1], box]), SIZE, name="row 3: boxes")


def test_boxes_of_another_form_are_refused():
    with pytest.raises(VividMedError, match="not \\(n, 6\\)"):
        validate_boxes(torch.zeros(2, 4), SIZE)
