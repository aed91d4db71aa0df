"""Localizers of every kind, and the checks of what they find."""

import json
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.grounded_reports import (
    AFFINE,
    LABELS,
    SIZE,
    body,
    write_label_maps,
    write_rows,
)
from vividmed.data.pseudo_labels.agreement import view_problem
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.instance_boxes import InstanceBoxes
from vividmed.data.pseudo_labels.localizers import (
    Found,
    Localizer,
    MaskFolder,
    NameTable,
    Request,
    table_names,
)
from vividmed.data.pseudo_labels.localizing import Localizing
from vividmed.data.pseudo_labels.programs import CocoBoxes, Program
from vividmed.data.pseudo_labels.sources import open_source
from vividmed.data.pseudo_labels.tagging_step import Tagging
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_image

REPORT = "Findings: The liver, the spleen, the left kidney and the right kidney are normal."


def image() -> MedicalImage:
    voxels, _ = body()
    return replace(read_image(nib.Nifti1Image(voxels.transpose(2, 1, 0), AFFINE)), source="image")


def request(*targets: str, **changes) -> Request:
    return replace(Request("clinic:case0", 0, 1, image(), targets, "train"), **changes)


def volumes(found) -> dict[str, int]:
    return {each.target: int(each.patch.inside.sum()) for each in found}


def true_volumes(*targets: str) -> dict[str, int]:
    _, labels = body()
    return {target: int((labels == LABELS[target]).sum()) for target in targets}


@pytest.mark.parametrize("name", table_names())
def test_tables_of_programs_name_targets_of_the_taxonomy(name):
    table, taxonomy = NameTable.load(name), Taxonomy.load()
    assert {*table.values.values(), *table.names.values()} <= {target.name for target in taxonomy}
    assert table.target("urinary_bladder") == "bladder"
    assert table.target("Left Kidney") == "left kidney"
    assert table.target("a structure that nobody knows") is None


def test_label_maps_are_read_by_value_and_parts_are_joined(tmp_path):
    folder = MaskFolder(write_label_maps(tmp_path, 1), NameTable.load("totalsegmentator"))
    found = volumes(folder.locate(request("liver", "kidney", "pancreas")))
    single = true_volumes("liver", "left kidney", "right kidney")
    assert found == {"liver": single["liver"], "kidney": single["left kidney"] + single["right kidney"]}


@pytest.mark.parametrize("layout", ["case0/liver.nii.gz", "case0/segmentations/liver.nii.gz"])
def test_folders_of_masks_are_read_by_name(tmp_path, layout):
    _, labels = body()
    path = tmp_path / layout
    path.parent.mkdir(parents=True)
    mask = (labels == LABELS["liver"]).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask.transpose(2, 1, 0), AFFINE), path)
    found = MaskFolder(tmp_path, NameTable.load("sat")).locate(request("liver", "spleen"))
    assert volumes(found) == true_volumes("liver")


def test_maps_of_the_original_grid_are_moved_to_that_of_the_row(tmp_path):
    _, labels = body()
    # Twice as fine in plane, axes turned the other way, and two slices more.
    fine = np.kron(labels, np.ones((1, 2, 2), dtype=np.uint8))[:, ::-1]
    fine = np.pad(fine, ((2, 0), (0, 0), (0, 0)))
    affine = AFFINE @ np.array([[0.5, 0, 0, -0.25], [0, -0.5, 0, 23.25], [0, 0, 1, -2], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(fine.transpose(2, 1, 0), affine), tmp_path / "case0.nii.gz")
    found = volumes(
        MaskFolder(tmp_path, NameTable.load("totalsegmentator")).locate(request("liver", "spleen"))
    )
    assert found == true_volumes("liver", "spleen")


def test_findings_that_are_counted_get_a_box_per_part(tmp_path):
    _, labels = body()
    one, other = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    one[2:4, 3:6, 3:6], other[6:8, 10:12, 10:15] = True, True
    case = tmp_path / "case0"
    case.mkdir()
    for name, mask in {"lung nodule": one | other, "liver": labels == LABELS["liver"]}.items():
        nib.save(nib.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), AFFINE), case / f"{name}.nii.gz")
    masks = MaskFolder(tmp_path, NameTable.load("totalsegmentator"))
    localizer = InstanceBoxes(masks, ["lung nodule"])
    found = list(localizer.locate(request("liver", "lung nodule")))
    assert [each.box for each in found if each.target == "lung nodule"] == [
        (2, 3, 3, 4, 6, 6),
        (6, 10, 10, 8, 12, 15),
    ]
    assert volumes(each for each in found if each.patch is not None) == true_volumes("liver")
    assert localizer.settings != masks.settings


def test_a_study_without_masks_is_named(tmp_path):
    with pytest.raises(VividMedError, match="case0"):
        list(MaskFolder(tmp_path, NameTable.load("sat")).locate(request("liver")))


PROGRAM = """
import shutil, sys
image, output, targets = sys.argv[1:]
assert open(image, "rb").read(2) == bytes([31, 139])
shutil.copy(r"{labels}", output)
open(r"{seen}", "a").write(targets)
"""


def test_a_program_is_run_without_a_shell(tmp_path):
    labels = write_label_maps(tmp_path / "maps", 1) / "case0.nii.gz"
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(labels=labels, seen=tmp_path / "seen"))
    command = f"{sys.executable} -S {script} {{image}} {{output}}.nii.gz {{targets}}"
    program = Program(command, NameTable.load("totalsegmentator"))
    found = volumes(program.locate(request("liver", "spleen", id="clinic:$(touch x); case")))
    assert found == true_volumes("liver", "spleen")
    assert (tmp_path / "seen").read_text() == "liver,spleen"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("segment {image}", "needs {image} and {output}"),
        ("segment {image} {output} {what}", "cannot be understood"),
        ("'segment {image} {output}", "cannot be understood"),
        ("no-such-program-here {image} {output}", "not installed"),
        (f"{sys.executable} -S -c 'import sys; sys.exit(3)' {{image}} {{output}}", "status 3"),
        (f"{sys.executable} -S -c pass {{image}} {{output}}", "has no masks"),
    ],
)
def test_programs_that_cannot_be_run_are_one_line(command, message):
    with pytest.raises(VividMedError, match=message):
        list(Program(command, NameTable.load("sat")).locate(request("liver")))


def coco(path, **changes):
    content = {
        "images": [{"id": 1, "file_name": "x/case0.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 7, "name": "Pleural effusion"}, {"id": 8, "name": "Other lesion"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [10, 20, 40, 60], "score": 0.9},
            {"image_id": 1, "category_id": 7, "bbox": [120, 20, 40, 60], "score": 0.05},
            {"image_id": 1, "category_id": 8, "bbox": [0, 0, 5, 5], "score": 0.9},
        ],
        **changes,
    }
    path.write_text(json.dumps(content))
    return path


def test_boxes_of_a_detector_follow_the_size_of_the_row_s_image_and_keep_their_scores(tmp_path):
    picture = read_image(Image.fromarray(np.zeros((50, 100), dtype=np.uint8)))
    (found,) = CocoBoxes(coco(tmp_path / "boxes.json")).locate(request("pleural effusion", image=picture))
    assert (found.box, found.score) == ((0, 10, 5, 1, 40, 25), 0.9)


@pytest.mark.parametrize(
    "changes", [{"images": None}, {"annotations": [{"image_id": 1}]}, {"categories": [1]}]
)
def test_what_is_no_coco_file_is_one_line(tmp_path, changes):
    with pytest.raises(VividMedError, match="COCO"):
        CocoBoxes(coco(tmp_path / "boxes.json", **changes))


def localize(tmp_path, report: str, change=None):
    rows = write_rows(tmp_path / "rows", [report])
    maps = write_label_maps(tmp_path / "maps", 1, change=change)
    studies = Filtering().run(Tagging().run(open_source(str(rows)).load(0, 1)))
    step = Localizing(MaskFolder(maps, NameTable.load("totalsegmentator")))
    return step.run(studies)[0]


def verdicts(study):
    return {(place.target, place.side): (place.verdict, *place.reasons) for place in study.places}


def swapped(labels):
    """Left and right kidney exchanged, as by a segmentation that ignored the header."""
    left, right = labels == LABELS["left kidney"], labels == LABELS["right kidney"]
    labels[left], labels[right] = LABELS["right kidney"], LABELS["left kidney"]
    return labels


def shrunk(labels):
    liver = np.argwhere(labels == LABELS["liver"])
    labels[labels == LABELS["liver"]] = 0
    labels[tuple(liver[len(liver) // 2])] = LABELS["liver"]
    return labels


def test_places_that_agree_with_the_report_and_with_anatomy_count(tmp_path):
    study = localize(tmp_path, REPORT)
    assert verdicts(study) == {
        (target, ""): ("agreed",) for target in ("liver", "spleen", "left kidney", "right kidney")
    }


@pytest.mark.parametrize(
    ("change", "target", "reason"),
    [
        (swapped, "left kidney", "other side: 0% on the left"),
        (shrunk, "liver", "implausible size: 1 ml, expected 400 to 5000 ml"),
    ],
)
def test_places_that_disagree_go_to_review_with_the_reason(tmp_path, change, target, reason):
    study = localize(tmp_path, REPORT, change)
    assert verdicts(study)[target, ""] == ("review", reason)
    assert reason.partition(":")[0] in [reject.reason for reject in study.rejects]


def test_boxes_of_an_organ_in_a_volume_are_checked_like_masks(tmp_path):
    """Two boxes of an organ that exists once, one of an organ that is far too small, and two of organs that exist twice."""
    boxes = {
        "liver": [((2, 4, 4, 8, 16, 13), 0.9), ((2, 4, 20, 8, 16, 29), 0.5)],
        "spleen": [((4, 8, 25, 5, 9, 26), 0.9)],
        "kidney": [((2, 17, 8, 5, 20, 11), 0.9), ((2, 17, 21, 5, 20, 24), 0.6)],
    }

    class Detector(Localizer):
        name = "detector"

        def locate(self, request):
            return [Found(target, box=box, score=score) for target in boxes for box, score in boxes[target]]

    rows = write_rows(tmp_path / "rows", ["Findings: Liver, spleen and kidneys are normal."])
    studies = Filtering().run(Tagging().run(open_source(str(rows)).load(0, 1)))
    (study,) = Localizing(Detector()).run(studies)
    assert [
        (p.target, p.score, p.verdict, p.reasons[0].partition(":")[0] if p.reasons else "")
        for p in study.places
    ] == [
        ("liver", 0.9, "agreed", ""),
        ("liver", 0.5, "review", "further box of a structure that exists once"),
        ("spleen", 0.9, "review", "implausible size"),
        ("kidney", 0.9, "agreed", ""),
        ("kidney", 0.6, "agreed", ""),
    ]


def with_lesion(where, value):
    def change(labels):
        labels[where] = value
        return labels

    return change


RIGHT_CYST = 24


@pytest.mark.parametrize(
    ("where", "verdict"),
    [
        ((slice(3, 5), slice(17, 19), slice(8, 10)), "agreed"),
        ((slice(3, 5), slice(4, 6), slice(5, 8)), "review"),
    ],
)
def test_a_lesion_outside_its_organ_goes_to_review(tmp_path, where, verdict):
    study = localize(tmp_path, "Findings: Right renal cyst.", with_lesion(where, RIGHT_CYST))
    assert verdicts(study)["right kidney cyst", ""][0] == verdict


def test_what_was_not_found_is_listed(tmp_path):
    study = localize(tmp_path, "Findings: The pancreas and the liver are normal.")
    assert [(r.reason, r.detail) for r in study.rejects if r.step == "localize"] == [
        ("not found", "pancreas")
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_finding_of_one_side_gets_only_the_places_on_that_side(tmp_path, side):
    """Effusions on both sides; the report names one. The label map has them under one value."""
    table = tmp_path / "names.json"
    table.write_text(json.dumps({"values": {"29": "vertebra", "200": "pleural effusion"}}))

    def effusions(labels):
        labels[4:6, 14:17, 4:7] = 200
        labels[4:6, 14:17, 26:29] = 200
        return labels

    rows = write_rows(tmp_path / "rows", [f"Findings: A {side} pleural effusion."])
    maps = write_label_maps(tmp_path / "maps", 1, change=effusions)
    studies = Filtering().run(Tagging().run(open_source(str(rows)).load(0, 1)))
    (study,) = Localizing(MaskFolder(maps, NameTable.load(str(table)))).run(studies)
    (place,) = study.places
    assert (place.verdict, place.side) == ("agreed", side)
    assert place.box[2::3] == ((26, 29) if side == "left" else (4, 7))


def test_two_views_must_show_a_target_at_the_same_place():
    volume, picture = image(), read_image(Image.fromarray(np.zeros((50, 100), dtype=np.uint8)))
    box, elsewhere = (2, 4, 4, 8, 16, 13), (2, 4, 20, 8, 16, 29)
    assert view_problem((volume, box, ""), (volume, box, "")) == ""
    assert "two views disagree" in view_problem((volume, box, ""), (volume, elsewhere, ""))
    flat = {"low": (0, 30, 10, 1, 45, 30), "high": (0, 2, 10, 1, 12, 30), "beside": (0, 30, 60, 1, 45, 80)}
    assert view_problem((picture, flat["low"], "PA"), (picture, flat["beside"], "lateral")) == ""
    assert view_problem((picture, flat["low"], "PA"), (picture, flat["beside"], "AP")) != ""
    assert view_problem((picture, flat["low"], "PA"), (picture, flat["high"], "lateral")) != ""


def test_the_grid_of_the_fixture_is_that_of_the_rows():
    assert image().size == SIZE
