import dataclasses

import numpy as np
import pytest

from tests.fixtures.studies import block_mask, grounded, oriented_volume, picture
from vividmed.errors import VividMedError
from vividmed.export import html, overlay, save_masks
from vividmed.export.findings import collect_findings, split_text
from vividmed.processing.grounded_text import GroundedText, Phrase

WRONG = {
    "mask of another grid": (
        {"mask": np.ones((1, 100, 120), dtype=bool)},
        r"opacity.*\(1, 100, 120\).*\(1, 120, 100\)",
    ),
    "mask in 2D": ({"mask": np.ones((120, 100), dtype=bool)}, r"opacity.*grid"),
    "probabilities": ({"mask": np.full((1, 120, 100), 0.3)}, "opacity.*float64.*threshold"),
    "inverted box": ({"boxes": np.array([[0, 50, 50, 1, 40, 60]])}, "opacity.*inverted"),
    "box outside": ({"boxes": np.array([[0, 50, 50, 1, 60, 101]])}, "opacity.*leaves the image"),
    "NaN box": ({"boxes": np.array([[0, np.nan, 50, 1, 60, 80]])}, "opacity.*boxes"),
    "box of 2D": ({"boxes": np.array([[10, 10, 20, 20]])}, "opacity.*not \\(n, 6\\)"),
    "too many scores": (
        {"boxes": np.array([[0, 1, 1, 1, 9, 9]]), "scores": np.array([0.5, 0.4])},
        "opacity.*scores",
    ),
    "NaN score": ({"boxes": np.array([[0, 1, 1, 1, 9, 9]]), "scores": np.array([np.nan])}, "opacity.*finite"),
}


@pytest.mark.parametrize("export", [overlay, html, save_masks])
@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_findings_are_refused_in_one_line_before_anything_is_written(export, fields, message, tmp_path):
    path = {overlay: "a.png", html: "a.html", save_masks: "masks"}[export]
    with pytest.raises(VividMedError, match=message) as caught:
        export(picture(), grounded("An opacity.", opacity=fields), tmp_path / path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("span", [(-1, 4), (5, 5), (6, 3), (8, 40)])
def test_a_phrase_outside_its_text_is_refused(span):
    with pytest.raises(VividMedError, match=r"phrase 1 .*span"):
        collect_findings(picture(), GroundedText("An opacity.", [Phrase("opacity", *span)]))


def test_overlapping_phrases_are_refused():
    phrases = [Phrase("small opacity", 2, 15), Phrase("opacity", 8, 15)]
    with pytest.raises(VividMedError, match=r"phrases 1 .* and 2 .* overlap"):
        collect_findings(picture(), GroundedText("A small opacity", phrases))


def test_every_slice_chosen_for_a_finding_of_two_parts_meets_it():
    image = oriented_volume("LPS")
    mask = block_mask(image.size, (1, 2, 1, 4, 6, 5)) | block_mask(image.size, (10, 18, 15, 13, 23, 19))
    (finding,) = collect_findings(image, grounded("effusions", effusions={"mask": mask}))
    z, y, x = finding.slices()
    assert mask[z].any()
    assert mask[:, y].any()
    assert mask[:, :, x].any()


def test_slices_go_through_the_best_box():
    boxes = np.array([[0, 0, 0, 2, 2, 2], [6, 10, 12, 9, 15, 19]])
    (finding,) = collect_findings(
        oriented_volume("LPS"), grounded("nodule", nodule={"boxes": boxes, "scores": np.array([0.2, 0.9])})
    )
    assert finding.slices() == (7, 12, 15)


def test_an_empty_mask_without_boxes_is_not_a_finding():
    image = picture()
    (finding,) = collect_findings(image, grounded("mass", mass={"mask": np.zeros(image.size, dtype=bool)}))
    assert not finding.found


def test_pieces_of_a_text_join_to_the_text_whatever_the_order_of_phrases():
    text = "Left nodule, right effusion."
    study = grounded(text, effusion={}, Left_nodule={})
    pieces = split_text(text, collect_findings(picture(), study))
    assert "".join(piece for piece, _ in pieces) == text
    assert [(piece, finding.number) for piece, finding in pieces if finding] == [
        ("Left nodule", 2),
        ("effusion", 1),
    ]


@pytest.mark.parametrize("export", [overlay, html, save_masks])
def test_a_path_that_cannot_be_written_is_named(export, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / {overlay: "a.png", html: "a.html", save_masks: "masks"}[export]
    with pytest.raises(VividMedError, match=r"file.*cannot be written"):
        export(picture(), grounded("An opacity."), path)


def test_a_killed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    html(picture(), grounded("Earlier."), path)
    earlier = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(VividMedError, match="No space left"):
        html(picture(), grounded("Later."), path)
    assert path.read_bytes() == earlier
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_images_with_nan_and_constant_images_are_drawn(tmp_path):
    image = oriented_volume("RAS")
    broken = image.array.copy()
    broken[0, 3] = np.nan
    for array in (broken, np.full_like(broken, np.nan), np.full_like(broken, 7.0)):
        odd = dataclasses.replace(image, array=array)
        assert overlay(odd, grounded("Nothing."), width=300).width == 300
        assert html(odd, grounded("Nothing."), tmp_path / "a.html").stat().st_size > 0
