import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.studies import block_mask, grounded, oriented_volume, picture
from vividmed.data.masks import unpack_mask
from vividmed.errors import VividMedError
from vividmed.export import html
from vividmed.processing.medical_image import MedicalImage

BOX = np.array([[2.0, 3.0, 4.0, 5.0, 8.0, 10.0]])


def stored(page: Path) -> dict:
    """What the page's viewer reads."""
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S
    )
    return json.loads(data)


def stored_image(image: dict) -> np.ndarray:
    """(C, D, H, W) intensities."""
    codes = np.frombuffer(zlib.decompress(base64.b64decode(image["voxels"])), dtype=np.uint8)
    return np.array(image["levels"])[codes].reshape(image["channels"], *image["size"])


def stored_mask(mask: dict, size: list[int]) -> np.ndarray:
    return unpack_mask({"target": "", "box": mask["box"], "bits": base64.b64decode(mask["bits"])}, size)


def test_the_page_asks_for_nothing_and_names_no_source(tmp_path):
    image = oriented_volume("LPS")
    path = html(image, grounded("A mass.", mass={"boxes": BOX}), tmp_path / "a.html")
    page = path.read_text("utf-8").replace(stored(path)["image"]["voxels"], "")
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//\w|\bsrc=|href=|@import|url\(|fetch\(|import\(|XMLHttpRequest", page)
    assert "secret" not in page


def test_text_cannot_become_markup(tmp_path):
    text = '</script><script>alert(1)</script> <!-- "mass" ${x} $data & é 肺'
    page = html(
        picture(), grounded(text, mass={"boxes": np.array([[0, 1, 1, 1, 9, 9]])}), tmp_path / "a.html"
    )
    assert page.read_text("utf-8").count("<script") == 2
    assert "".join(piece for piece, _ in stored(page)["text"]) == text


def test_masks_boxes_and_slices_are_those_of_the_findings(tmp_path):
    image = oriented_volume("LPS")
    mask = np.random.default_rng(0).random(image.size) > 0.7
    study = grounded(
        "Cyst, node, mass.", Cyst={"mask": mask}, node={"boxes": BOX, "scores": np.array([0.5])}, mass={}
    )
    data = stored(html(image, study, tmp_path / "a.html"))

    cyst, node, mass = data["findings"]
    assert (stored_mask(cyst["mask"], data["image"]["size"]) == mask).all()
    assert node["boxes"] == BOX.tolist()
    assert node["slices"] == [3, 5, 7]
    assert not mass["found"]
    assert [number for _, number in data["text"] if number] == [1, 2, 3]


def test_eight_bit_images_are_stored_exactly(tmp_path):
    image = picture(channels=3)
    image.array[:] = np.random.default_rng(0).integers(0, 256, image.array.shape)
    assert (
        stored_image(stored(html(image, grounded("."), tmp_path / "a.html"))["image"]) == image.array
    ).all()


def test_soft_tissue_of_a_ct_keeps_fine_steps(tmp_path):
    rng = np.random.default_rng(0)
    array = np.where(rng.random((1, 30, 40, 50)) < 0.4, -1000, rng.normal(50, 40, (1, 30, 40, 50)))
    array[0, 0, 0] = 1500
    image = MedicalImage(array.round().astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]), oriented=True)
    data = stored(html(image, grounded("."), tmp_path / "a.html"))["image"]
    error = np.abs(stored_image(data) - image.array)
    soft = (image.array > 0) & (image.array < 100)
    assert error[soft].max() <= 2
    assert error.max() <= (1500 + 1000) / 255
    assert "lung" in data["presets"]


def test_large_images_are_reduced_with_their_masks_and_boxes(tmp_path, caplog):
    image = oriented_volume("LPS", (64, 64, 20), (0.5, 0.5, 2.0))
    speck = np.zeros(image.size, dtype=bool)
    speck[5, 11, 13] = True
    organ = block_mask(image.size, (4, 8, 8, 12, 40, 48))
    study = grounded(
        "speck organ",
        speck={"mask": speck},
        organ={"mask": organ, "boxes": np.array([[4, 8, 8, 12, 40, 48]])},
    )
    page = html(image, study, tmp_path / "a.html", max_values=6000)

    data = stored(page)
    size, factors = data["image"]["size"], data["image"]["factors"]
    assert np.prod(size) <= 6000
    assert factors == [1, 4, 4]  # the finest axes first, until voxels are cubes
    assert data["image"]["originalSize"] == [20, 64, 64]
    speck_stored, organ_stored = (stored_mask(finding["mask"], size) for finding in data["findings"])
    assert np.argwhere(speck_stored).tolist() == [[5, 2, 3]]
    assert organ_stored.sum() * 16 == organ.sum()
    assert data["findings"][1]["boxes"] == [[4, 2, 2, 12, 10, 12]]
    assert data["findings"][0]["slices"] == [5, 2, 3]
    blocks = image.array.reshape(1, 20, 16, 4, 16, 4).mean(axis=(3, 5))
    assert np.abs(stored_image(data["image"]) - blocks).max() < 0.1


def test_sizes_that_blocks_do_not_divide_are_averaged_to_the_edge(tmp_path):
    image = MedicalImage(np.full((1, 1, 101, 67), 9, dtype=np.uint8), np.eye(4))
    data = stored(html(image, grounded("."), tmp_path / "a.html", max_values=1000))["image"]
    assert np.prod(data["size"]) <= 1000
    assert (stored_image(data) == 9).all()


def test_the_file_is_bounded_by_the_limit(tmp_path):
    array = np.random.default_rng(0).integers(
        0, 65535, (1, 40, 60, 60), dtype=np.uint16
    )  # noise does not compress
    page = html(MedicalImage(array, np.eye(4)), grounded("."), tmp_path / "a.html", max_values=50_000)
    assert page.stat().st_size < 1.4 * 50_000 + 30_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a.png"}, r"a\.png.*html"),
        ({"max_values": 10}, "max_values = 10"),
        ({"window": (0, -1)}, "window"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(VividMedError, match=message):
        html(picture(), grounded("A mass."), **{"path": tmp_path / "a.html", **arguments})
