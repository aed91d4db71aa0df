import numpy as np
import pytest
from PIL import Image

from tests.fixtures.studies import ORIENTATIONS, block_mask, grounded, oriented_volume, picture, voxel_at
from vividmed.errors import VividMedError
from vividmed.export import overlay
from vividmed.export.palette import finding_colour
from vividmed.export.text_panel import BACKGROUND, MUTED


def where(drawn: Image.Image, colour) -> np.ndarray:
    """(n, 2) rows and columns of the pixels of a colour."""
    return np.argwhere((np.asarray(drawn) == colour).all(axis=-1))


def test_a_mask_is_drawn_where_it_is_in_a_picture():
    image = picture((120, 100))
    study = grounded("x", x={"mask": block_mask(image.size, (0, 30, 50, 1, 60, 80))})
    drawn = overlay(image, study, width=1048)  # 24 pixels of margin, then 10 pixels a voxel

    pixels = where(drawn, finding_colour(1))
    contour = pixels[(pixels[:, 0] > 24 + 300) & (pixels[:, 0] < 24 + 1200)]
    assert contour.min(axis=0) == pytest.approx([324, 524], abs=2)
    assert contour.max(axis=0) == pytest.approx([623, 823], abs=2)
    inside = np.asarray(drawn)[24 + 450, 24 + 650].astype(int)
    outside = np.asarray(drawn)[24 + 450, 24 + 200].astype(int)
    assert outside.tolist() == [40, 40, 40]
    assert (inside[:2] > outside[:2]).all()
    assert (inside < finding_colour(1)).any()


def test_a_box_is_a_frame_around_its_voxels():
    image = picture((120, 100))
    study = grounded("x", x={"boxes": np.array([[0, 30, 50, 1, 60, 80]])})
    drawn = overlay(image, study, width=1048)

    pixels = where(drawn, finding_colour(1))
    frame = pixels[(pixels[:, 0] > 24 + 310) & (pixels[:, 0] < 24 + 1200)]
    assert frame[:, 1].min() == pytest.approx(524, abs=1)
    assert frame.max(axis=0) == pytest.approx([623, 823], abs=1)
    assert np.asarray(drawn)[24 + 450, 24 + 650].tolist() == [40, 40, 40]


@pytest.mark.parametrize("code", ORIENTATIONS[::5])
def test_findings_on_the_left_lie_right_of_the_middle_of_axial_slices(code):
    image = oriented_volume(code)
    z, y, x = voxel_at(image, (-6, 0, 0))
    mask = np.zeros(image.size, dtype=bool)
    mask[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = True
    drawn = overlay(image, grounded(".", **{".": {"mask": mask}}), width=900)

    pixels = where(drawn, finding_colour(1))
    pixels = pixels[(pixels[:, 0] > 24 + 40) & (pixels[:, 0] < drawn.height - 100)]
    axial_width = (900 - 48 - 16) * 20 / (20 + 20 + 24)
    axial = pixels[pixels[:, 1] < 24 + axial_width]
    assert len(axial)
    assert axial[:, 1].min() > 24 + axial_width / 2


def test_a_volume_gives_a_row_for_every_finding_and_one_without_findings():
    image = oriented_volume("LPS")
    first, second = block_mask(image.size, (2, 2, 2, 5, 6, 6)), block_mask(image.size, (8, 9, 9, 11, 15, 15))
    text = "cyst node mass"
    none, one, two = (
        overlay(image, grounded(text, **found), width=600).height
        for found in (
            {"mass": {}},
            {"cyst": {"mask": first}, "mass": {}},
            {"cyst": {"mask": first}, "node": {"mask": second}, "mass": {}},
        )
    )
    report = overlay(picture((100, 100)), grounded(text), width=600).height - 24 - (600 - 48)
    header = one - none
    assert header > 0
    assert two - one == none - report + header


def test_phrases_stand_on_their_colours_and_grey_without_a_finding():
    box = {"boxes": np.array([[0, 30, 50, 1, 60, 80]])}
    drawn = overlay(picture((120, 100)), grounded("cyst node mass", cyst=box, node={}, mass=box), width=448)
    panel = np.asarray(drawn)[24 + 480 :]
    first, second = (where(panel, finding_colour(number)) for number in (1, 3))
    assert len(first)
    assert len(second)
    assert first[:, 1].max() < second[:, 1].min()
    grey = where(panel, MUTED)
    assert len(grey)
    assert (grey[:, 1] > first[:, 1].max()).all()
    assert (grey[:, 1] < second[:, 1].min()).all()


def test_long_texts_wrap_and_nothing_runs_out_of_the_picture():
    words = "Multifocal consolidation without cavitation. " * 40 + "a" * 400
    text = "mass " + words + "\n\nImpression: node"
    box = {"boxes": np.array([[0, 1, 1, 1, 9, 9]])}
    short = overlay(picture(), grounded("mass", mass=box), width=400)
    drawn = overlay(picture(), grounded(text, mass=box, node=box), width=400)
    assert drawn.height > short.height + 32 * 40
    panel = np.asarray(drawn)[short.height :]
    assert (panel[:, -20:] == BACKGROUND).all()
    assert (panel[:, :20] == BACKGROUND).all()
    assert len(where(panel, finding_colour(2)))


def test_forty_findings_and_an_empty_text_are_drawn():
    names = [f"n{number:02d}" for number in range(40)]
    boxes = {name: {"boxes": np.array([[0, i, i, 1, i + 9, i + 9]])} for i, name in enumerate(names)}
    many = overlay(picture(), grounded(" ".join(names), **boxes), width=400)
    assert all(len(where(many, finding_colour(number))) for number in range(1, 15))
    assert overlay(picture(), grounded(""), width=400).height < many.height


def test_colour_pictures_keep_their_colours():
    image = picture(channels=3)
    image.array[0] = 200
    drawn = overlay(image, grounded("Retina."), width=400)
    assert np.asarray(drawn)[100, 200].tolist() == [200, 40, 40]


def test_a_window_sets_black_and_white():
    image = oriented_volume("LPS")
    image.array[:] = 40.0
    middle = (200, 24 + 100)
    for window, grey in (((40, 400), 128), ((240, 400), 0), ((-160, 400), 255)):
        drawn = np.asarray(overlay(image, grounded("."), window=window, width=800))
        assert drawn[middle].tolist() == [grey] * 3


def test_the_file_is_the_picture_returned_and_carries_no_text_fields(tmp_path):
    path = tmp_path / "new" / "overlay.png"
    drawn = overlay(picture(), grounded("A mass.", mass={}), path, width=300)
    with Image.open(path) as written:
        assert np.array_equal(np.asarray(written), np.asarray(drawn))
        assert written.info == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a.jpg"}, "a.jpg.*png"),
        ({"width": 50}, "width 50"),
        ({"window": (40, 0)}, r"window.*level, width"),
        ({"window": (40,)}, "window"),
        ({"font": "no-such-font.ttf"}, "no-such-font.ttf: not a readable font"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(VividMedError, match=message):
        overlay(picture(), grounded("A mass."), **arguments)


def test_windows_line_ends_read_as_line_breaks():
    box = {"boxes": np.array([[0, 1, 1, 1, 9, 9]])}
    unix, windows = (
        overlay(picture(), grounded(f"Chest.{end}A mass{end}{end}in{end}the lung.", mass=box), width=400)
        for end in ("\n", "\r\n")
    )
    assert np.array_equal(np.asarray(unix), np.asarray(windows))


@pytest.mark.parametrize("width", range(300, 420, 20))
def test_a_phrase_keeps_its_number_and_full_stop_in_its_line(width):
    box = {"boxes": np.array([[0, 1, 1, 1, 9, 9]])}
    drawn = np.asarray(overlay(picture((50, 100)), grounded("Right upper lobe mass.", mass=box), width=width))
    panel = drawn[24 + (width - 48) // 2 :]
    rows = where(panel, finding_colour(1))[:, 0]
    assert np.ptp(rows) < 32  # one line
    last_line = panel[rows.max() + 6 :]
    assert (last_line == BACKGROUND).all()
