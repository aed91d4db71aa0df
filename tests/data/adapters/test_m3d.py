import json
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.miniatures import (
    Prepared,
    image_of,
    picture,
    prepare_miniature,
    truncate,
    write_picture,
    write_table,
)

SLICES = np.stack([picture((36, 44), seed) for seed in range(11)])
TEXT = "title: Cyst\npresentation: Pain.\nstudy_findings: There is a cyst\nin the liver.\ndiscussion: Cysts are common.\n"
SERIES = {  # series: split
    "000001/Axial_C__portal_venous_phase": "train",
    "000001/Coronal_C": "train",
    "000002/Axial_non-contrast": "validation",
    "000003/Axial_C": "test",
    "000004/Axial_C": "test",
    "000005/Axial_C": "train",
}


def write_series(folder: Path) -> None:
    for number, array in enumerate(SLICES, 1):
        write_picture(folder / f"{number}.png", np.stack([array] * 3, axis=-1))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    origin = tmp_path_factory.mktemp("m3d") / "origin"
    cases = origin / "M3D_Cap/ct_case"
    listed: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": [], "test1k": []}
    for name, split in SERIES.items():
        write_series(cases / name)
        text = (
            TEXT if not name.startswith("000003") else "title: Cyst\nstudy_findings: \ndiscussion: Common.\n"
        )
        (cases / name).parent.joinpath("text.txt").write_text(text)
        case = name.partition("/")[0]
        listed[split].append({"image": f"ct_case/{name}.npy", "text": f"ct_case/{case}/text.txt"})
    (cases / "000004/Axial_C/6.png").unlink()  # a gap
    truncate(cases / "000005/Axial_C/3.png")
    (origin / "M3D_Cap/M3D_Cap.json").write_text(json.dumps(listed))
    for part, name, answer in (
        ("train", "000001/Coronal_C", "Coronal"),
        ("val", "000002/Axial_non-contrast", ""),
        ("test", "000003/Axial_C", "A cyst"),
    ):
        row = {
            "Image Path": f"M3D_Cap_npy/ct_case/{name}.npy",
            "Question Type": 1,
            "Question": "What is shown?",
            **{f"Choice {letter}": "x" for letter in "ABCD"},
            "Answer": answer,
            "Answer Choice": "A",
        }
        write_table(origin / f"M3D-VQA/M3D_VQA_{part}.csv", [row])
    return origin


@pytest.fixture(scope="module")
def captions(origin: Path) -> Prepared:
    return prepare_miniature("m3d-cap", origin, origin.parent)


@pytest.fixture(scope="module")
def questions(origin: Path) -> Prepared:
    return prepare_miniature("m3d-vqa", origin, origin.parent)


def test_slices_are_stacked_by_number_and_grey(captions: Prepared):
    array, _ = image_of(captions.rows["ct_case/000001/Coronal_C"])
    np.testing.assert_array_equal(array, SLICES)


def test_findings_are_taken_without_the_discussion(captions: Prepared):
    row = captions.rows["ct_case/000001/Axial_C__portal_venous_phase"]
    assert row["messages"][1]["content"] == "Findings: There is a cyst in the liver."
    assert row["kind"] == "report"


def test_the_plane_is_in_the_name_of_the_series(captions: Prepared):
    planes = {key: row["plane"] for key, row in captions.rows.items()}
    assert planes == {
        "ct_case/000001/Axial_C__portal_venous_phase": "axial",
        "ct_case/000001/Coronal_C": "coronal",
        "ct_case/000002/Axial_non-contrast": "axial",
    }


def test_splits_are_those_of_the_list(captions: Prepared):
    assert captions.split_of == {
        "ct_case/000001/Axial_C__portal_venous_phase": "train",
        "ct_case/000001/Coronal_C": "train",
        "ct_case/000002/Axial_non-contrast": "validation",
    }
    assert captions.rows["ct_case/000001/Coronal_C"]["patient"] == "m3d-cap:ct_case/000001"


def test_cases_without_findings_are_left_out_and_broken_series_fail(captions: Prepared):
    assert list(captions.result.left_out) == ["ct_case/000003/Axial_C"]
    assert set(captions.result.failed) == {"ct_case/000004/Axial_C", "ct_case/000005/Axial_C"}
    assert "without gaps" in captions.result.failed["ct_case/000004/Axial_C"]


def test_questions_share_images_patients_and_splits_with_the_captions(
    questions: Prepared, captions: Prepared
):
    assert questions.split_of == {"ct_case/000001/Coronal_C": "train", "ct_case/000003/Axial_C": "test"}
    row = questions.rows["ct_case/000001/Coronal_C"]
    assert row["patient"] == captions.rows["ct_case/000001/Coronal_C"]["patient"]
    assert [message["content"] for message in row["messages"]] == ["What is shown?", "Coronal"]
    assert list(questions.result.left_out) == ["ct_case/000002/Axial_non-contrast"]
