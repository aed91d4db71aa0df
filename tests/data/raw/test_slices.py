from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import picture, truncate, write_picture
from vividmed.data.raw.slices import read_slices
from vividmed.errors import VividMedError


def write_series(folder: Path, numbers: list[int], size: tuple[int, int] = (20, 24)) -> Path:
    for number in numbers:
        write_picture(folder / f"{number}.png", picture(size, seed=number))
    return folder


def test_slices_are_in_the_order_of_their_numbers(tmp_path: Path):
    image = read_slices(write_series(tmp_path, list(range(1, 12))))
    np.testing.assert_array_equal(image.array[0], [picture((20, 24), seed=n) for n in range(1, 12)])
    assert not image.oriented


def test_numbers_may_begin_with_zero(tmp_path: Path):
    assert read_slices(write_series(tmp_path, [0, 1, 2])).size == (3, 20, 24)


def test_one_coloured_slice_makes_the_volume_coloured(tmp_path: Path):
    colour = np.stack([picture((20, 24), seed) for seed in (7, 8, 9)], axis=-1)
    write_picture(write_series(tmp_path, [1, 2]) / "3.png", colour)
    image = read_slices(tmp_path)
    assert image.array.shape == (3, 3, 20, 24)
    np.testing.assert_array_equal(image.array[:, 2], colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(image.array[0, 0], image.array[2, 0])


def test_hidden_files_are_not_slices(tmp_path: Path):
    (write_series(tmp_path, [1, 2]) / "._1.png").write_bytes(b"")
    assert read_slices(tmp_path).size[0] == 2


def test_a_gap_a_late_start_and_a_name_are_refused(tmp_path: Path):
    for name, numbers in (("gap", [1, 2, 4]), ("late", [2, 3]), ("empty", [])):
        (tmp_path / name).mkdir()
        with pytest.raises(VividMedError, match=f"{name}.*without gaps"):
            read_slices(write_series(tmp_path / name, numbers))
    write_picture(write_series(tmp_path / "named", [1]) / "scout.png", picture())
    with pytest.raises(VividMedError, match="not named by its number"):
        read_slices(tmp_path / "named")


def test_slices_of_different_sizes_are_refused(tmp_path: Path):
    write_picture(write_series(tmp_path, [1, 2]) / "3.png", picture((24, 20)))
    with pytest.raises(VividMedError, match="sizes"):
        read_slices(tmp_path)


def test_truncated_slices_and_missing_folders_are_named(tmp_path: Path):
    truncate(write_series(tmp_path, [1, 2]) / "2.png")
    with pytest.raises(VividMedError, match=r"2\.png"):
        read_slices(tmp_path)
    with pytest.raises(VividMedError, match="no such folder"):
        read_slices(tmp_path / "nowhere")
