from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom
from vividmed.data.raw.annotation import LabelMap
from vividmed.data.raw.images import read_original
from vividmed.errors import VividMedError

PHANTOM = Phantom(values=(1, 2, 3), size=(20, 18, 10))


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    PHANTOM.write_image(tmp_path / "image.nii.gz")
    return tmp_path


def _targets(origin: Path, labels: LabelMap) -> list[str]:
    return [patch.target for patch in labels.masks(read_original(origin / "image.nii.gz"))]


@pytest.mark.parametrize(
    ("mapping", "values"),
    [({1: 255}, "255"), ({1: 1, 2: 7}, "7"), ({1: 4, 2: 5, 3: 1}, "4, 5"), ({3: 32767}, "32767")],
)
def test_a_value_that_no_target_names_is_refused_instead_of_making_its_target_absent(
    origin: Path, mapping: dict[int, int], values: str
):
    path = origin / "label.nii.gz"
    PHANTOM.write_labels(path, mapping)
    with pytest.raises(
        VividMedError, match=rf"label\.nii\.gz: contains the label values {values}, which belong to no"
    ):
        _targets(origin, LabelMap(path, {"liver": 1}))


@pytest.mark.parametrize("ignored", [(2, 3), range(2, 9), frozenset({2, 3})])
def test_values_that_are_declared_as_ignored_pass(origin: Path, ignored: object):
    path = PHANTOM.write_labels(origin / "label.nii.gz")
    labels = LabelMap(path, {"liver": 1, "spleen": 9}, ignored=ignored)  # type: ignore[arg-type]
    assert _targets(origin, labels) == ["liver"]


def test_many_unknown_values_are_named_shortly(origin: Path):
    phantom = Phantom(values=tuple(range(1, 13)), size=(32, 28, 16))
    phantom.write_image(origin / "image.nii.gz")
    path = phantom.write_labels(origin / "label.nii.gz")
    with pytest.raises(VividMedError, match=r"values 1, 2, 3, 4, 5, 6, 7, 8, \.\.\., which"):
        _targets(origin, LabelMap(path, {}))
