"""Placeholder texts and malformed boxes in the tables and records of every data set that has some."""

import csv
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import tests.data.adapters
from tests.fixtures.prepared_miniatures import MINIATURES
from vividmed.data.adapters import get_adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.plan import Listing, list_cases

for module in iter_modules(tests.data.adapters.__path__):
    import_module(f"{tests.data.adapters.__name__}.{module.name}")

TEXTS = {  # adapter: files, field with the text
    "ct-rate": ("dataset/radiology_text_reports/*.csv", "Findings_EN"),
    "openi": ("indiana_reports.csv", "findings"),
    "radgenome-chestct": ("dataset/radgenome_files/*.csv", "Sentence"),
    "rocov2": ("*_captions.csv", "Caption"),
    "radiopaedia": ("RadFM_data_csv/data_csv/*.json", "finding"),
    "padchest-gr": ("grounded_reports_20240819.json", "sentence_en"),
    "pmc-oa": ("pmc_oa.jsonl", "caption"),
}
BOXES = {  # adapter: files, field with a corner or an edge
    "vindr-cxr": ("annotations/annotations_train.csv", "x_min"),
    "ms-cxr": ("MS-CXR/*.csv", "w"),
    "chest-imagenome": ("chest-imagenome/silver_dataset/scene_graph/aa-1_SceneGraph.json", "original_x1"),
}


def _listed(
    adapter: str, tmp_path: Path, files: str, change: Callable[[Path], None]
) -> tuple[Listing, Listing]:
    """Cases of a miniature before and after its files were changed."""
    origin = tmp_path / "origin"
    MINIATURES[adapter].write(origin)
    before = list_cases(get_adapter(adapter), origin, Processing())
    paths = list(origin.glob(files))
    assert paths
    for path in paths:
        change(path)
    return before, list_cases(get_adapter(adapter), origin, Processing())


def _set(field: str, value: Any, *, first_only: bool = False) -> Callable[[Path], None]:
    """Set a field of all rows or records of a file, or only where it occurs first."""
    left = [1 if first_only else 10**9]

    def replaced(item: Any) -> Any:
        if isinstance(item, list):
            return [replaced(part) for part in item]
        if isinstance(item, dict):
            return {key: new(key, part) for key, part in item.items()}
        return item

    def new(key: str, part: Any) -> Any:
        if key != field or not part or not left[0]:
            return replaced(part)
        left[0] -= 1
        return value

    def change(path: Path) -> None:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as stream:
                rows = replaced(list(csv.DictReader(stream)))
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            path.write_text("\n".join(json.dumps(replaced(json.loads(line))) for line in lines))
        else:
            path.write_text(json.dumps(replaced(json.loads(path.read_text(encoding="utf-8")))))

    return change


@pytest.mark.parametrize("placeholder", ["Not given.", "N/A", " - "])
@pytest.mark.parametrize("adapter", TEXTS)
def test_reports_and_captions_that_say_nothing_are_left_out(adapter: str, placeholder: str, tmp_path: Path):
    files, field = TEXTS[adapter]
    before, after = _listed(adapter, tmp_path, files, _set(field, placeholder))
    assert before.cases
    assert after.cases == ()
    assert {item.case.id for item in before.cases} <= after.left_out.keys()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x"])
@pytest.mark.parametrize("adapter", BOXES)
def test_a_corner_that_is_no_finite_number_fails_its_case_only(adapter: str, value: str, tmp_path: Path):
    files, field = BOXES[adapter]
    before, after = _listed(adapter, tmp_path, files, _set(field, value, first_only=True))
    (lost,) = {item.case.id for item in before.cases} - {item.case.id for item in after.cases}
    assert "a finite number is needed" in after.failed[lost]
    assert after.failed.keys() - before.failed.keys() == {lost}


def test_a_misspelt_class_of_a_box_fails_its_case(tmp_path: Path):
    change = _set("class_name", "Cardiomegalia", first_only=True)
    before, after = _listed("vindr-cxr", tmp_path, "annotations/annotations_train.csv", change)
    (lost,) = {item.case.id for item in before.cases} - {item.case.id for item in after.cases}
    assert "line 2: class_name 'Cardiomegalia' is unknown" in after.failed[lost]


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/hostname", "", "a" * 300 + ".jpg", None, "a\0b.jpg"]
)
def test_an_odd_name_in_a_record_fails_its_case_only(name: str | None, tmp_path: Path):
    change = _set("image", name, first_only=True)
    before, after = _listed("pmc-oa", tmp_path, "pmc_oa.jsonl", change)
    assert len(after.cases) == len(before.cases) - 1
    assert len(after.failed) == len(before.failed) + 1
