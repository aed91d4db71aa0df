"""The benchmark of lungs by phrase: which masks count, and what the exit status says."""

import numpy as np
import pytest

from benchmarks.learning.lungs import main
from vividmed.metrics.masks import encode_mask
from vividmed.metrics.predictions import PlacedPhrase, Prediction, PredictionWriter

LEFT, RIGHT = np.zeros((2, 1, 4, 8), dtype=bool)
LEFT[..., 4:], RIGHT[..., :4] = True, True


def place(target: str, mask: np.ndarray | None) -> PlacedPhrase:
    return PlacedPhrase(text=target, target=target, mask=None if mask is None else encode_mask(mask))


@pytest.mark.parametrize(
    ("drawn", "failure", "mean", "status"),
    [
        ((LEFT, RIGHT), None, "1.000", 0),
        ((LEFT, LEFT), None, "0.500", 1),
        ((LEFT, None), None, "0.500", 1),
        ((None, None), "the image is broken", "0.000", 1),
    ],
)
def test_lungs_count_where_they_are_present(tmp_path, capsys, drawn, failure, mean, status):
    references = [place("left lung", LEFT), place("right lung", RIGHT), place("heart", LEFT)]
    absent = [place("left lung", None), place("heart", LEFT)]
    found = [place(*pair) for pair in zip(("left lung", "right lung"), drawn, strict=True)]
    with PredictionWriter(tmp_path) as writer:
        shared = {"patient": "p", "task": "ground", "modality": "CT", "size": [1, 4, 8]}
        writer.write(
            Prediction(
                id="p-axial-00",
                references=references,
                phrases=[*found, place("heart", None)],
                failure=failure,
                **shared,
            )
        )
        writer.write(
            Prediction(id="p-axial-01", references=absent, phrases=[place("left lung", RIGHT)] * 2, **shared)
        )
    assert main([str(tmp_path)]) == status
    *_, mean_line, _ = lines = capsys.readouterr().out.splitlines()
    assert mean_line.split(")")[0] == "lungs by phrase (2 masks"
    assert mean in mean_line
    assert any(line.startswith("p, axial (2 masks)") for line in lines)
