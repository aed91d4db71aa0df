"""Text burnt into images is warned about, and nothing else is."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.fixtures.miniatures import Phantom, write_picture, write_radiograph
from tests.fixtures.preparation import Toy
from vividmed.data.adapters.base import Case, ImageFile
from vividmed.data.preparation.burnt_in import shows_text
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.data.sample import load_sample

NAME = "DOE JANE 12.03.1956"


def tissue(size: tuple[int, int] = (300, 400), seed: int = 0) -> np.ndarray:
    """(H, W) uint8: blobs of mid grey with noise, and a few that reach the brightest value."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    array = 90 + generator.normal(0, 12, size)
    for cy, cx, r in generator.uniform(0, 1, (12, 3)):
        array += 120 * np.exp(-((y - cy * size[0]) ** 2 + (x - cx * size[1]) ** 2) / (15 + 40 * r) ** 2)
    return np.clip(array, 0, 255).astype(np.uint8)


def write_on(array: np.ndarray, text: str, grey: int = 255, size: int = 16) -> np.ndarray:
    picture = Image.fromarray(array)
    ImageDraw.Draw(picture).text((12, 10), text, fill=grey, font=ImageFont.load_default(size))
    return np.asarray(picture)


def planes(array: np.ndarray) -> np.ndarray:
    return array[None, None] if array.ndim == 2 else np.moveaxis(array, -1, 0)[:, None]


@pytest.mark.parametrize("size", [12, 16, 28])
@pytest.mark.parametrize("grey", [255, 0])
def test_a_name_is_seen(size: int, grey: int):
    assert shows_text(planes(write_on(tissue(), NAME, grey, size)))


def test_a_name_is_seen_in_colour_and_in_16_bits():
    colours = np.repeat(tissue()[..., None], 3, axis=-1)
    assert shows_text(planes(np.stack([write_on(tissue(), NAME, 230), *np.moveaxis(colours, -1, 0)[1:]], -1)))
    assert shows_text(planes(write_on(tissue(), NAME).astype(np.uint16) * 16))


def test_a_name_is_seen_on_a_large_radiograph():
    assert shows_text(planes(write_on(np.kron(tissue((650, 750)), np.ones((4, 4), np.uint8)), NAME, size=48)))


@pytest.mark.parametrize("seed", range(4))
def test_tissue_noise_and_markers_of_a_side_are_not_text(seed: int):
    noise = np.random.default_rng(seed).integers(0, 256, (200, 200)).astype(np.uint8)
    for array in (
        tissue(seed=seed),
        noise,
        write_on(tissue(seed=seed), "R"),
        write_on(tissue(seed=seed), "L PA"),
    ):
        assert not shows_text(planes(array))
    assert not shows_text(planes(np.zeros((20, 20), np.uint8)))


def test_images_of_the_sample_are_not_taken_for_text():
    rows = load_sample("localization", "test")
    for row in rows.select(range(0, len(rows), 4)):
        for picture in row["images"]:
            assert not shows_text(planes(np.asarray(picture))), row["id"]


def test_volumes_are_not_looked_at():
    assert not shows_text(np.repeat(planes(write_on(tissue(), NAME)), 4, axis=1))


class Pictures(Toy):
    modalities = ("X-ray",)

    def cases(self, origin: Path) -> Iterator[Case]:
        for path in sorted(origin.iterdir()):
            yield Case(
                id=path.stem,
                patient=path.stem,
                images=(ImageFile(path=path, modality="X-ray"),),
                absent=("liver",),
            )


def test_warnings_are_listed_and_the_cases_prepared(tmp_path: Path):
    write_picture(tmp_path / "in/named.png", write_on(tissue(), NAME))
    write_picture(tmp_path / "in/plain.png", tissue())
    array = tissue().astype(np.uint16)
    write_radiograph(tmp_path / "in/told.dcm", array, BurnedInAnnotation="YES")
    write_radiograph(tmp_path / "in/untold.dcm", array, BurnedInAnnotation="NO")
    write_radiograph(
        tmp_path / "in/wrong.dcm", write_on(tissue(), NAME).astype(np.uint16), BurnedInAnnotation="NO"
    )
    result = prepare_dataset(Pictures(), tmp_path / "in", tmp_path / "out")
    assert sum(result.rows.values()) == 5
    assert result.failed == {}
    seen = "text seems to be burnt into the image; check it for names"
    assert result.warnings == {
        "named": [f"named.png: {seen}"],
        "told": ["told.dcm: the file says that text is burnt into the image; check it for names"],
        "wrong": [f"wrong.dcm: {seen}"],
    }
    with (tmp_path / "out/failures.csv").open(encoding="utf-8") as stream:
        listed = {row["id"]: (row["outcome"], row["reason"]) for row in csv.DictReader(stream)}
    assert listed == {key: ("warning", reasons[0]) for key, reasons in result.warnings.items()}
    again = prepare_dataset(Pictures(), tmp_path / "in", tmp_path / "out")
    assert (again.worked_on, again.warnings) == (0, result.warnings)


def test_a_volume_gives_no_warning(tmp_path: Path):
    Phantom().write_image(tmp_path / "in/ct.nii.gz")
    assert prepare_dataset(Pictures(), tmp_path / "in", tmp_path / "out").warnings == {}
