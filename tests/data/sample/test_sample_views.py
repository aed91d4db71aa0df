"""Cutting, measuring and describing views of synthetic scans whose truth is known."""

import itertools
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from tests.fixtures.dicom_files import structure_set, write_series
from vividmed.data.sample.measures import extent_mm, is_measurable, millilitres, side_of
from vividmed.data.sample.questions import BUDGETS, Budget, ask, learnable_targets
from vividmed.data.sample.reports import compose_report
from vividmed.data.sample.scan import Scan, read_scan
from vividmed.data.sample.sources import PYRADIOMICS, VolumeSource
from vividmed.data.sample.views import View, slices, volumes
from vividmed.errors import VividMedError

# A patient of 60 x 40 x 50 voxels (left-right, front-back, head-foot) in RAS+ order, with a liver on the right and a
# spleen on the left.
SHAPE = (60, 40, 50)
AFFINE = np.array([[2.0, 0, 0, -60], [0, 3.0, 0, -60], [0, 0, 4.0, 0], [0, 0, 0, 1]])
LIVER, SPLEEN = (slice(33, 53), slice(10, 30), slice(10, 30)), (slice(6, 14), slice(8, 18), slice(12, 20))
NAMES = {"liver": (5,), "spleen": (1, 2), "heart": (51,)}


def anatomy() -> tuple[np.ndarray, np.ndarray]:
    image = np.full(SHAPE, -1000, np.int16)
    image[2:58, 4:36] = 0
    labels = np.zeros(SHAPE, np.uint8)
    labels[LIVER], labels[SPLEEN] = 5, 2
    image[labels == 5], image[labels == 2] = 60, 45
    return image, labels


def write(folder, axes=(0, 1, 2), flips=(1, 1, 1)) -> Scan:
    """Store the anatomy in another axis order and direction, and read it again."""
    turn = np.array([(axis, flip) for axis, flip in zip(axes, flips, strict=True)])
    for name, array in zip(("image", "labels"), anatomy(), strict=True):
        nib.Nifti1Image(array, AFFINE).as_reoriented(turn).to_filename(folder / f"{name}.nii.gz")
    return read_scan([folder / "image.nii.gz"], {folder / "labels.nii.gz": NAMES})


def world_centre(scan: Scan, target: str) -> np.ndarray:
    z, y, x = np.argwhere(scan.mask(target)).mean(axis=0)
    return (scan.affine @ [x, y, z, 1])[:3]


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_a_scan_reads_the_same_however_it_is_stored(tmp_path, axes, flips):
    scan = write(tmp_path, axes, flips)
    assert scan.array.shape == (50, 40, 60)
    assert scan.spacing == (4.0, 3.0, 2.0)
    assert nib.aff2axcodes(scan.affine) == ("L", "P", "S")
    columns = np.argwhere(scan.mask("liver"))[:, 2]
    assert columns.max() < 30, "the liver, on the right, is on the left of an axial slice"
    _, labels = anatomy()
    expected = AFFINE @ [*np.argwhere(labels == 5).mean(axis=0), 1]
    np.testing.assert_allclose(world_centre(scan, "liver"), expected[:3], atol=1e-4)
    assert set(np.unique(scan.array[scan.mask("spleen")])) == {45}
    assert not scan.mask("heart").any()


def test_a_label_map_of_a_part_is_put_in_its_place(tmp_path):
    whole = write(tmp_path)
    _, labels = anatomy()
    part = nib.Nifti1Image(labels, AFFINE).slicer[30:60, 5:35, 8:40]
    part.to_filename(tmp_path / "part.nii.gz")
    nib.Nifti1Image((labels == 2).astype(np.uint8), AFFINE).to_filename(tmp_path / "spleen.nii.gz")
    scan = read_scan(
        [tmp_path / "image.nii.gz"],
        {tmp_path / "part.nii.gz": {"liver": (5,)}, tmp_path / "spleen.nii.gz": {"spleen": (1,)}},
    )
    for target in ("liver", "spleen"):
        np.testing.assert_array_equal(scan.mask(target), whole.mask(target))


@pytest.mark.parametrize("change", [np.diag([1.1, 1, 1, 1]), np.array([[1, 0, 0, 0.5], *np.eye(4)[1:]])])
def test_labels_of_another_grid_are_refused(tmp_path, change):
    write(tmp_path)
    nib.Nifti1Image(anatomy()[1], AFFINE @ change).to_filename(tmp_path / "off.nii.gz")
    with pytest.raises(VividMedError, match=r"off\.nii\.gz: not on the grid of image\.nii\.gz"):
        read_scan([tmp_path / "image.nii.gz"], {tmp_path / "off.nii.gz": NAMES})


def test_contours_of_a_structure_set_label_the_series_in_its_folder(tmp_path):
    volume = np.zeros((4, 20, 24), np.int16)
    volume[2, 6:11, 4:12] = 700
    write_series(tmp_path / "series", volume)
    z, (y0, x0, y1, x1) = 2 * 2.5, (-20 + 0.8 * 5.5, -10 + 0.7 * 3.5, -20 + 0.8 * 10.5, -10 + 0.7 * 11.5)
    square = [x0, y0, z, x1, y0, z, x1, y1, z, x0, y1, z]
    contours = structure_set(tmp_path / "series" / "structures.dcm", [("GTV-1", [square])])
    slices_of_series = sorted(set((tmp_path / "series").iterdir()) - {contours})
    scan = read_scan(slices_of_series, {contours: {"lung lesion": ("GTV-1",)}})
    assert scan.mask("lung lesion").sum() == 40
    assert (scan.array[scan.mask("lung lesion")] == 700).all()


@pytest.mark.parametrize("spacing", [(4.0, 3.0, 2.0), (2.5, 2.5, 2.5), (8.0, 4.5, 4.5), (3.1, 5.3, 1.7)])
def test_resampling_and_cropping_keep_places_in_the_world(tmp_path, spacing):
    scan = write(tmp_path)
    other = scan.resampled(spacing).crop((2, 1, 3), (20, 12, 20))
    np.testing.assert_allclose(other.spacing, spacing, rtol=0.05)
    assert other.array.shape == other.labels.shape == (18, 11, 17)
    half = [0.5 * max(a, b) + 1e-6 for a, b in zip(other.spacing[::-1], scan.spacing[::-1], strict=True)]
    for index in [(0, 0, 0), (8, 5, 8), (17, 10, 16)]:
        world = other.affine @ [*index[::-1], 1]
        nearest = np.rint(np.linalg.inv(scan.affine) @ world)[:3].astype(int)
        back = scan.affine @ [*nearest, 1]
        assert (np.abs(back - world)[:3] <= half).all()
        near = scan.labels[tuple(slice(max(n - 1, 0), n + 2) for n in nearest[::-1])]
        assert other.labels[index] in near
    volume = [s.mask("liver").sum() * np.prod(s.spacing) for s in (scan, scan.resampled(spacing))]
    assert volume[1] == pytest.approx(volume[0], rel=0.12)


SOURCE = VolumeSource(
    name="toy",
    modality="CT",
    body_part="abdomen",
    archive=PYRADIOMICS,
    image="toy.nii.gz",
    labels={},
    slice_spacing=2.0,
    volume_spacing=(4.0, 3.0, 3.0),
    windows=((-160.0, 240.0),),
    slices={"axial": 12, "coronal": 9, "sagittal": 9},
    asked_slices={"coronal": 6, "sagittal": 4},
    depth=80,
    volumes=4,
)


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> list[View]:
    scan = write(tmp_path_factory.mktemp("scan"))
    return [*slices(SOURCE, scan), *volumes(SOURCE, scan)]


def test_slices_and_sub_volumes_carry_matching_masks(views):
    assert sum(view.is_volume for view in views) == 4
    assert {view.plane for view in views if not view.is_volume} == {"axial", "coronal", "sagittal"}
    level = {"liver": (60 + 160) / 400 * 255, "spleen": (45 + 160) / 400 * 255}
    hounsfield = {"liver": 60, "spleen": 45}
    medians: dict[tuple[str, bool], list[float]] = {}
    for view in views:
        image = view.image if view.is_volume else view.image[None]
        for target, mask in view.masks.items():
            assert mask.shape == image.shape
            medians.setdefault((target, view.is_volume), []).append(float(np.median(image[mask])))
    for target in ("liver", "spleen"):
        assert np.median(medians[target, False]) == pytest.approx(level[target], abs=1)
        assert np.median(medians[target, True]) == pytest.approx(hounsfield[target], abs=1)


def test_slices_to_ask_about_take_the_place_of_the_others_of_their_plane(views):
    asked = [view for view in views if view.use == "questions"]
    assert [view.plane for view in asked] == ["coronal"] * 6 + ["sagittal"] * 4
    assert all(view.whole for view in asked)
    questions = ask(views, BUDGETS["train"], ["liver", "spleen"])
    about_planes = {question.view.name for question in questions if question.kind == "plane"}
    assert {view.name for view in asked} <= about_planes
    assert not {view.name for view in views if view.use == "locations"} & about_planes
    for question in questions:
        view, target = question.view, re.search("liver|spleen", question.question)
        if question.kind == "presence":
            assert target[0] in (view.masks if question.answer == "Yes." else view.absent)
        elif question.kind in ("finding", "report"):
            assert view.use != "questions"


def test_what_is_barely_visible_is_neither_present_nor_absent(views):
    states = {"present": 0, "absent": 0, "unclear": 0}
    for view in views:
        for target in NAMES:
            states["present"] += target in view.masks
            states["absent"] += target in view.absent
            states["unclear"] += target not in view.masks and target not in view.absent
        assert not set(view.masks) & set(view.absent)
        assert "heart" in view.absent
    assert all(states.values())


def test_sides_are_those_of_the_patient(views):
    sides = {(target, side) for view in views for target, side in view.sides.items()}
    assert sides == {("liver", "right"), ("spleen", "left")}


def test_the_head_is_up_on_coronal_and_sagittal_slices(tmp_path):
    scan = write(tmp_path)
    graded = replace(scan, array=scan.array + np.arange(50)[:, None, None] * 10)
    for view in slices(replace(SOURCE, windows=None), graded):
        if view.plane != "axial":
            inside = view.image[:, view.image.shape[1] // 2].astype(int)
            assert inside[1] > inside[-2]


def test_figures_of_a_mask():
    mask = np.zeros((10, 10, 20), dtype=bool)
    mask[2:5, 3:7, 4:9] = True
    affine = np.diag([-2.0, -3.0, 5.0, 1.0])
    assert extent_mm(mask, affine) == (10, 12, 15)
    assert millilitres(mask, affine) == "1.8"
    assert millilitres(np.ones((10, 10, 20)), affine) == "60"
    assert side_of(mask) == "right"
    assert side_of(mask[..., ::-1]) == "left"
    assert side_of(np.ones((2, 2, 8))) is None
    assert is_measurable(mask)
    assert not is_measurable(mask[:4]), "cut off by the image"
    mask[8, 8, 18] = True
    assert not is_measurable(mask), "two parts"


def kidneys(**present: bool) -> View:
    """A view with the named kidneys; the others are absent, or unclear where the value is None."""
    box = np.zeros((8, 8, 16), dtype=bool)
    box[2:6, 2:6, 2:6] = True
    names = {side: f"{side} kidney" for side in ("left", "right")}
    return View(
        name="v",
        patient="p",
        modality="CT",
        source="s",
        licence="l",
        image=np.zeros((8, 8, 16), np.int16),
        affine=np.diag([-10.0, -10.0, 10.0, 1.0]),
        masks={names[side]: box for side, value in present.items() if value},
        absent=tuple(names[side] for side, value in present.items() if value is False),
    )


@pytest.mark.parametrize(
    ("present", "answer"),
    [
        ({"left": True, "right": True}, "Two kidneys are visible."),
        ({"left": False, "right": True}, "One kidney is visible, the right kidney."),
        ({"left": False, "right": False}, "No kidney is visible."),
    ],
)
def test_paired_organs_are_counted(present, answer):
    answers = [q.answer for q in ask([kidneys(**present)], BUDGETS["train"], []) if q.kind == "finding"]
    assert answer in answers


def test_organs_are_not_counted_when_one_is_unclear():
    questions = ask([kidneys(left=True, right=None)], BUDGETS["train"], [])
    assert questions
    assert not [q for q in questions if "visible." in q.answer and q.kind == "finding"]


def test_presence_questions_are_balanced_and_skip_targets_with_one_answer_only(views):
    budget = Budget(modality=0, plane=0, presence=5, finding=0, report=0)
    questions = ask(views, budget, NAMES)
    for target in ("liver", "spleen"):
        answers = [q.answer for q in questions if target in q.question]
        assert answers.count("Yes.") == answers.count("No.") > 0
    assert not [q for q in questions if "heart" in q.question]


def test_closed_questions_are_about_the_whole_cross_section(views):
    asked = [q for q in ask(views, BUDGETS["train"], NAMES) if q.kind in ("modality", "plane", "presence")]
    assert {q.kind for q in asked} == {"modality", "plane", "presence"}
    assert all(q.view.whole for q in asked)
    assert not all(view.whole for view in views)


def test_targets_are_asked_for_if_two_training_patients_and_both_splits_have_them(views):
    others = [replace(view, patient="other", absent=("liver",), masks={}) for view in views]
    assert learnable_targets(views, views) == frozenset()
    assert learnable_targets([*views, *others], views) == {"liver"}
    assert learnable_targets([*views, *others], others) == frozenset()


def test_a_report_marks_every_phrase_it_names(views):
    for view in views:
        report = compose_report(view)
        assert report.marked.replace("<p>", "").replace("</p>", "") == report.text
        for phrase in report.phrases:
            assert report.text[phrase.start : phrase.end] == phrase.text
            assert set(phrase.targets) <= set(view.masks)
        assert {t for phrase in report.phrases for t in phrase.targets} == set(view.masks)
        assert report.marked.count("<p>") == len(report.phrases)
