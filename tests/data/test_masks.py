import zlib

import numpy as np
import pytest

from vividmed.data.masks import bounding_box, check_box, pack_mask, unpack_mask
from vividmed.errors import VividMedError


def test_a_packed_mask_comes_back_unchanged():
    random = np.random.default_rng(0)
    for shape in [(1, 1, 1), (1, 17, 9), (5, 4, 3), (3, 8, 16), (7, 13, 11)]:
        for share in (0.02, 0.5, 1.0):
            mask = random.random(shape) < share
            packed = pack_mask("liver", mask)
            np.testing.assert_array_equal(unpack_mask(packed, shape), mask)
            assert packed["target"] == "liver"


def test_bits_follow_the_documented_order():
    mask = np.zeros((2, 3, 4), dtype=bool)
    mask[0, 1, 1] = mask[1, 2, 2] = True  # corners of a 2 x 2 x 2 box: first and last voxel of eight
    packed = pack_mask("x", mask)
    assert packed["box"] == [0, 1, 1, 2, 3, 3]
    assert zlib.decompress(packed["bits"]) == bytes([0b10000001])


def test_the_bounding_box_is_half_open_and_tight():
    mask = np.zeros((6, 7, 8))
    mask[2:4, 3, 5:8] = 1
    assert bounding_box(mask) == (2, 3, 5, 4, 4, 8)
    assert bounding_box(np.zeros((2, 2, 2))) is None


def test_an_empty_mask_stays_empty():
    packed = pack_mask("tumor", np.zeros((2, 3, 4), dtype=bool))
    assert packed["box"] == [0] * 6
    assert not unpack_mask(packed, (2, 3, 4)).any()


def test_a_2d_array_is_refused():
    with pytest.raises(VividMedError, match=r"axes \(z, y, x\)"):
        pack_mask("liver", np.ones((3, 3)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"bits": b"not zlib"}, "'liver'.*damaged"),
        ({"bits": zlib.compress(b"")}, "'liver'.*do not fill"),
        ({"bits": zlib.compress(bytes(99))}, "'liver'.*do not fill"),
        ({"box": [0, 0, 0, 9, 2, 2]}, "'liver'.*z range 0 to 9 leaves the grid of 4"),
    ],
)
def test_a_damaged_mask_is_named(change, match):
    packed = pack_mask("liver", np.ones((2, 2, 2)))
    with pytest.raises(VividMedError, match=match):
        unpack_mask({**packed, **change}, (4, 4, 4))


@pytest.mark.parametrize(
    ("box", "match"),
    [
        ([0, 0, 0, 1, 1], "6 numbers"),
        ([0, 2, 0, 1, 2, 1], "y0 = 2 is not below y1 = 2"),
        ([0, 0, -1, 1, 1, 1], "x range -1 to 1"),
        ([0, 0, 0, 0, 0, 0], "z0 = 0 is not below"),
    ],
)
def test_a_bad_box_is_explained(box, match):
    with pytest.raises(VividMedError, match=f"box of liver: .*{match}"):
        check_box(box, (4, 4, 4), "box of liver")
