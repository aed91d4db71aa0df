"""A folder of small images of every kind, which tables name."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import (
    Phantom,
    picture,
    truncate,
    write_dicom_series,
    write_picture,
    write_radiograph,
)

PHANTOM = Phantom(size=(16, 14, 6))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2D images, a volume, DICOM files, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(
        [
            "a.png",
            "b.png",
            "c.jpg",
            "p1/x.png",
            "p1/y.png",
            "p2/x.png",
            "ä ö.png",
            "one, two.png",
            "0007.png",
            "08.png",
        ]
    ):
        write_picture(folder / name, picture((24, 20), seed=number))
    PHANTOM.write_image(folder / "ct.nii.gz")
    write_dicom_series(folder / "series", PHANTOM.image(), PHANTOM.affine)
    write_radiograph(
        folder / "cr.dcm", np.random.default_rng(0).integers(0, 4096, (24, 20)).astype(np.uint16)
    )
    truncate(write_picture(folder / "broken.png", picture((24, 20))))
    (folder / "empty.png").touch()
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    write_picture(folder / unicodedata.normalize("NFD", "ü") / "k.png", picture((24, 20), seed=20))
    return folder
