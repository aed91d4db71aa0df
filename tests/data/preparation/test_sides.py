"""Structures named by a side must lie on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.miniatures import Phantom
from tests.fixtures.preparation import Toy
from vividmed.data.adapters.base import Case, ImageFile, LabelMap
from vividmed.data.preparation.prepare import prepare_dataset

PHANTOM = Phantom(values=(1, 2, 3, 4, 5), size=(48, 28, 8), sides=((1, 2), (3, 4)))
LEFT, RIGHT = (1, 3), (2, 4)


class Sided(Toy):
    labels: dict[str, int]

    def cases(self, origin: Path) -> Iterator[Case]:
        yield Case(
            id="1",
            patient="1",
            images=(ImageFile(path=origin / "image.nii.gz", modality="CT"),),
            annotations=(LabelMap(origin / "label.nii.gz", self.labels, ignored=PHANTOM.values),),
        )


def prepare(tmp_path: Path, labels: dict[str, int], phantom: Phantom = PHANTOM):
    phantom.write_image(tmp_path / "origin/image.nii.gz")
    phantom.write_labels(tmp_path / "origin/label.nii.gz")
    adapter = Sided()
    adapter.labels = labels
    return prepare_dataset(adapter, tmp_path / "origin", tmp_path / "out")


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PSR"])
def test_right_sides_pass_whatever_the_axes_of_the_file(tmp_path: Path, axcodes: str):
    labels = {"left kidney": LEFT[0], "right kidney": RIGHT[0]}
    result = prepare(tmp_path, labels, replace(PHANTOM, axcodes=axcodes))
    assert result.failed == {}
    assert result.warnings == {}


def test_exchanged_label_values_fail_the_case(tmp_path: Path):
    result = prepare(tmp_path, {"left hip bone": RIGHT[0], "right hip bone": LEFT[0], "sacrum": 5})
    assert sum(result.rows.values()) == 0
    assert result.failed["1"] == (
        "image.nii.gz: 1 of 1 left structures lie to the right of their counterpart (left hip bone); the label values "
        "are exchanged or the header places the image wrongly"
    )


def test_one_pair_of_several_is_a_warning(tmp_path: Path):
    labels = {"left kidney": LEFT[0], "right kidney": RIGHT[0], "left lung": RIGHT[1], "right lung": LEFT[1]}
    result = prepare(tmp_path, labels)
    assert result.failed == {}
    assert "1 of 2 left structures lie to the right" in result.warnings["1"][0]
    assert "(left lung)" in result.warnings["1"][0]


def test_structures_named_by_their_form_may_lie_anywhere(tmp_path: Path):
    result = prepare(tmp_path, {"left atrium": RIGHT[0], "right atrium": LEFT[0]})
    assert result.failed == {}
    assert result.warnings == {}


def test_a_side_without_its_counterpart_is_not_judged(tmp_path: Path):
    result = prepare(tmp_path, {"left kidney": RIGHT[0], "right lung": LEFT[0]})
    assert result.failed == {}
    assert result.warnings == {}
