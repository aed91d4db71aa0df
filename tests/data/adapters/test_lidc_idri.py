from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    masks_of,
    prepare_miniature,
    truncate,
    write_dicom_series,
)

LUNGS = {"left lung": 3, "right lung": 4, "trachea": 5}
CHEST = Phantom(values=(1, 2, 3, 4, 5), spacing=(0.75, 0.75, 2.5), sides=((3, 4),))
Corners = tuple[np.ndarray, np.ndarray]


class Scan:
    """A CT series and the readings of it."""

    def __init__(self, origin: Path, patient: str, number: int, **fields: object):
        self.folder = origin / f"LIDC-IDRI/{patient}/01-01-2000-{number}/3000{number}-03192"
        image = nib.load(CHEST.write_image(origin.parent / f"{patient}.nii"))
        labels = nib.load(CHEST.write_labels(origin.parent / f"{patient}-labels.nii"))
        self.affine = image.affine
        self.labels = np.asarray(labels.dataobj)
        write_dicom_series(self.folder, np.asarray(image.dataobj), image.affine, **fields)
        self.series = str(pydicom.dcmread(self.folder / "0000.dcm").SeriesInstanceUID)
        self.id = f"{patient}_{self.series}"

    def corners(self, value: int, margin: int = 0) -> Corners:
        """First and last voxel (column, row, slice) of a structure, in-plane by a margin further out."""
        places = np.argwhere(self.labels == value)
        wider = np.array([margin, margin, 0])
        return places.min(axis=0) - wider, places.max(axis=0) + wider

    def nodule(self, corners: Corners, inclusion: str = "TRUE") -> str:
        """Outlines that run through the first pixels outside."""
        (x0, y0, z0), (x1, y1, z1) = corners
        x0, y0, x1, y1 = x0 - 1, y0 - 1, x1 + 1, y1 + 1
        ring = [(x, y0) for x in range(x0, x1)] + [(x1, y) for y in range(y0, y1)]
        ring += [(x, y1) for x in range(x1, x0, -1)] + [(x0, y) for y in range(y1, y0 - 1, -1)]
        return "".join(self._roi(ring, z, inclusion) for z in range(z0, z1 + 1))

    def point(self, value: int) -> str:
        """The mark of a nodule below 3 mm."""
        (x, y, z), _ = self.corners(value)
        return self._roi([(x, y)], z, "TRUE")

    def _roi(self, points: list[tuple[int, int]], z: int, inclusion: str) -> str:
        edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
        position = (self.affine @ [0, 0, z, 1])[2]
        return (
            f"<roi><imageZposition>{position:.6f}</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>"
            f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
        )

    def write_reading(self, path: Path, *readers: list[str]) -> Path:
        """One list of nodules a reader."""
        sessions = ""
        for nodules in readers:
            marks = "".join(
                f"<unblindedReadNodule><noduleID>{i}</noduleID>{rois}</unblindedReadNodule>"
                for i, rois in enumerate(nodules)
            )
            sessions += (
                f"<readingSession>{marks}<nonNodule><nonNoduleID>1</nonNoduleID></nonNodule></readingSession>"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            '<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
            f"<SeriesInstanceUid>{self.series}</SeriesInstanceUid></ResponseHeader>{sessions}</LidcReadMessage>"
        )
        return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scan]:
    origin = tmp_path_factory.mktemp("lidc") / "origin"
    fields = {"nodules": {"ContrastBolusAgent": "Omnipaque"}, "radiograph": {"Modality": "DX"}}
    names = ("nodules", "hole", "none", "small", "corrupt", "unread", "radiograph")
    return {
        name: Scan(origin, f"LIDC-IDRI-{number:04d}", number, **fields.get(name, {}))
        for number, name in enumerate(names, start=1)
    }


@pytest.fixture(scope="module")
def prepared(scans: dict[str, Scan]) -> Prepared:
    scan = scans["nodules"]
    origin = scan.folder.parents[3]
    exact = [scan.nodule(scan.corners(1)), scan.nodule(scan.corners(2))]
    wide = [scan.nodule(scan.corners(1, margin=1))]
    # Two of three readers agree on the first nodule, one alone saw the second.
    scan.write_reading(scan.folder / "069.xml", exact, [exact[0]], wide, [])
    CHEST.write_labels(origin / f"seg-lungs-LUNA16/{scan.series}.mhd", {3: 3, 4: 4, 5: 5})
    scan = scans["hole"]
    low, high = scan.corners(1)
    x, y = low[:2] + 1  # one voxel in each slice
    hole = scan.nodule((np.array([x, y, low[2]]), np.array([x, y, high[2]])), "FALSE")
    scan.write_reading(origin / "tcia-lidc-xml/157/158.xml", [scan.nodule((low, high)) + hole])
    scans["none"].write_reading(origin / "tcia-lidc-xml/157/159.xml", [], [])
    scans["small"].write_reading(origin / "tcia-lidc-xml/157/160.xml", [scans["small"].point(1)])
    scan = scans["corrupt"]
    truncate(scan.write_reading(origin / "tcia-lidc-xml/157/161.xml", [scan.nodule(scan.corners(1))] * 4))
    return prepare_miniature("lidc-idri", origin, origin.parent)


def test_nodules_are_what_half_of_their_readers_outlined_without_the_outline(
    prepared: Prepared, scans: dict[str, Scan]
):
    row = prepared.rows[scans["nodules"].id]
    assert_row_shows(row, CHEST, {"lung nodule": (1, 2)} | LUNGS)
    assert len(masks_of(row, "lung nodule")) == 2
    assert row["patient"] == "lidc-idri:LIDC-IDRI-0001"


def test_the_contrast_agent_decides_on_the_modality(prepared: Prepared, scans: dict[str, Scan]):
    assert prepared.rows[scans["nodules"].id]["modality"] == "contrast-enhanced CT"
    assert prepared.rows[scans["none"].id]["modality"] == "CT"


def test_an_excluded_part_is_a_hole(prepared: Prepared, scans: dict[str, Scan]):
    scan = scans["hole"]
    (mask,) = masks_of(prepared.rows[scan.id], "lung nodule")
    low, high = scan.corners(1)
    assert mask.sum() == np.prod(high - low + 1) - (high - low + 1)[2]


def test_no_mark_means_no_nodule_but_a_small_mark_means_unknown(prepared: Prepared, scans: dict[str, Scan]):
    none, small = prepared.rows[scans["none"].id], prepared.rows[scans["small"].id]
    assert (none["targets"], none["absent"]) == ([], ["lung nodule"])
    assert (small["targets"], small["absent"]) == ([], [])


def test_radiographs_and_series_without_a_reading_are_left_out(prepared: Prepared, scans: dict[str, Scan]):
    assert prepared.result.left_out == {
        scans["unread"].id: "no XML file contains a reading of it",
        scans["radiograph"].id: "it is not CT but DX",
    }


def test_a_truncated_reading_fails_alone(prepared: Prepared, scans: dict[str, Scan]):
    assert list(prepared.result.failed) == [scans["corrupt"].id]
    assert "161.xml" in prepared.result.failed[scans["corrupt"].id]
