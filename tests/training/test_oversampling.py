"""Rows of chosen targets are drawn more often."""

import pytest
from datasets import Dataset

from vividmed.errors import VividMedError
from vividmed.training.oversampling import oversample, read_factors

ROWS = Dataset.from_dict(
    {"id": ["a", "b", "c"], "targets": [["liver"], ["left lung", "heart"], []]},
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (None, "abc"),
        ("", "abc"),
        ("left lung=3", "abbbc"),
        ("left lung=3, heart=2", "abbbc"),
        ("lung on the left=2,liver=2", "aabbc"),
        ("left lung=1", "abc"),
    ],
)
def test_rows_count_as_often_as_the_largest_factor_of_their_targets(text, ids):
    assert "".join(oversample(ROWS, read_factors(text))["id"]) == ids


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("left lung", "whole number from 1 to 100"),
        ("left lung=0", "whole number from 1 to 100"),
        ("left lung=1.5", "whole number from 1 to 100"),
        ("left lnug=2", "no such target"),
        ("spleen=2", "no training row shows spleen"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, reason):
    with pytest.raises(VividMedError, match=reason):
        oversample(ROWS, read_factors(text))


def test_rows_without_targets_are_refused():
    with pytest.raises(VividMedError, match="needs localization rows"):
        oversample(ROWS.remove_columns("targets"), read_factors("left lung=2"))
