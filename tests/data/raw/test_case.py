from pathlib import Path

import numpy as np
import pytest

from vividmed.data.raw.annotation import LabelMap
from vividmed.data.raw.case import Case, Failed, ImageFile, QuestionAnswer, Skipped, printable, vqa_turns


def _case(id: object = "a", patient: object = "1", path: str = "a.png", **fields: object) -> Case:
    return Case(id=id, patient=patient, images=(ImageFile(path=Path(path), modality="CT"),), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("patient", ["12", " 12 ", "\t12\n", "12\u00a0", 12, np.int64(12), 12.0])
def test_one_patient_has_one_key_however_it_is_written(patient: object):
    case = _case(patient=patient)
    assert case.patient == "12"
    assert case.problem() is None


def test_composed_and_decomposed_letters_are_one_patient():
    assert _case(patient="Zoe\u0301").patient == _case(patient="Zo\u00e9").patient


@pytest.mark.parametrize("patient", ["", "  ", None, "nan", float("nan"), "None", "NULL", "lits:", "lits: "])
def test_an_empty_patient_is_a_problem(patient: object):
    assert "patient id is empty" in (_case(patient=patient).problem() or "")


@pytest.mark.parametrize("id", ["", " ", None])
def test_an_empty_id_is_a_problem(id: object):
    assert "its id is empty" in (_case(id=id).problem() or "")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"id": "a\udcff"}, "'a?' is not UTF-8"),
        ({"id": "a\nb"}, "'a?b' contains control characters"),
        ({"patient": "p\udc80"}, "its patient id 'p?' is not UTF-8"),
        ({"id": "a" * 5000}, "has 5000 characters"),
        ({"turns": (QuestionAnswer("vqa", "What?", "A \ud800 mass"),)}, "half a character"),
        ({"report": "A \udfff mass"}, "half a character"),
        ({"turns": (QuestionAnswer("vqa", "What?", True),)}, "is not text"),  # type: ignore[arg-type]
        ({"id": "bc\ud800"}, "'bc?' is not UTF-8"),
        ({"path": "a\udcff.png"}, "is not UTF-8; rename the file"),
        ({"path": "a" * 256 + ".png"}, "longer than any file's"),
        ({"path": "ab/" * 2000}, "longer than any file's"),
        ({"path": "a\0.png"}, "contains a NUL byte"),
        ({"annotations": (LabelMap(Path("ä" * 130), {}),)}, "longer than any file's"),
    ],
)
def test_odd_names_are_a_problem_in_one_line(fields: dict[str, object], problem: str):
    found = _case(**fields).problem() or ""  # type: ignore[arg-type]
    assert problem in found
    assert found.isprintable()
    found.encode()


def test_names_of_any_language_are_sound():
    assert _case(id="Bild (1) [ß] 肺", patient="Ünal", path="a/肺 'x'.png").problem() is None


@pytest.mark.parametrize("kind", [Skipped, Failed])
def test_reasons_are_listed_under_a_printable_id(kind: type):
    assert kind(" a\udcff\nb ", "odd").id == "a??b"
    assert printable("é") == "é"


def test_pairs_without_question_or_answer_are_left_out():
    turns = list(vqa_turns([("What\nis it?", 3), ("", "x"), ("Where?", None)]))
    assert [(turn.turn_kind, turn.question, turn.answer) for turn in turns] == [("vqa", "What is it?", "3")]
