"""What grounding stages record: forms of targets, and the presence score below which a phrase counts as absent."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM, VividMedProcessor
from vividmed.data.masks import pack_mask
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import SCHEMAS
from vividmed.training.presence import (
    PresenceScores,
    best_threshold,
    calibrate_presence,
    read_record,
    score_presence,
    trained_forms,
    write_record,
)


def rows(count=6):
    records = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24)).astype(np.uint8)
        mask = np.zeros((1, 20, 24), dtype=bool)
        mask[:, 2:9, 3:12] = True
        records.append(
            {
                "id": f"row-{number}",
                "patient": f"p{number}",
                "images": [Image.fromarray(pixels)],
                "volumes": [],
                "modality": "X-ray",
                "source": "s",
                "licence": "l",
                "targets": ["liver", "heart", "left lung"],
                "absent": ["spleen"],
                "masks": [dict(pack_mask("liver", mask)), dict(pack_mask("left lung", mask))],
                "boxes": [{"target": name, "box": [0, 2, 3, 1, 9, 12]} for name in ("heart", "left lung")],
                "incomplete": ["left lung"],
            }
        )
    return Dataset.from_list(records, features=SCHEMAS["localization"])


@pytest.fixture(scope="module")
def processor():
    return VividMedProcessor.tiny()


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    return VividMedForCausalLM(VividMedConfig.tiny(len(processor.tokenizer), grounding=True)).eval()


@pytest.mark.parametrize(
    ("present", "absent", "low", "high"),
    [
        ([0.7, 0.8, 0.9, 0.95, 0.99], [0.1, 0.2, 0.3, 0.35, 0.4], 0.4, 0.7),
        ([0.2, 0.8, 0.9, 0.95, 0.99], [0.1, 0.3, 0.3, 0.35, 0.4], 0.4, 0.8),
        ([0.9] * 5, [0.1] * 5, 0.1, 0.9),
        # The best by itself, 0.8, would lose most of what is there.
        ([0.2, 0.3, 0.4, 0.9, 0.9], [0.1, 0.5, 0.5, 0.5, 0.5, 0.5], 0.1, 0.2),
    ],
)
def test_the_threshold_separates_present_from_absent(present, absent, low, high):
    assert low < best_threshold(present, absent) < high


@pytest.mark.parametrize(
    ("present", "absent"),
    [([0.9] * 4, [0.1] * 9), ([0.9] * 9, []), ([0.5] * 9, [0.5] * 9), ([0.1] * 5, [0.9] * 5)],
    ids=["few present", "none absent", "all equal", "reversed"],
)
def test_scores_that_say_nothing_give_no_threshold(present, absent):
    assert best_threshold(present, absent) is None


def test_forms_are_those_of_the_labels():
    assert trained_forms(rows(1)) == {"heart": "box", "left lung": "both", "liver": "mask"}


def test_forms_of_a_stream_are_those_of_its_rows(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    rows(2).to_parquet(tmp_path / "one" / "train.parquet")
    other = rows(1).map(
        lambda row: {"masks": [], "boxes": [*row["boxes"][:1], {"target": "liver", "box": [0] * 6}]}
    )
    other.cast(SCHEMAS["localization"]).to_parquet(tmp_path / "two" / "train.parquet")
    entries = tuple(MixtureEntry(name=name, row_kind="localization") for name in ("one", "two"))
    stream = MixtureStream(MixtureConfig(entries=entries, root=str(tmp_path)), batch_size=1)
    assert trained_forms(stream) == {"heart": "box", "left lung": "both", "liver": "both"}


def test_known_targets_are_scored_in_their_form_and_incomplete_ones_are_not(model, processor):
    model.config.target_forms = {"heart": "box", "liver": "mask", "spleen": "mask"}
    scores = score_presence(model, processor, rows(2))
    assert [len(scores.present[form]) for form in ("mask", "box")] == [2, 2]
    assert [len(scores.absent[form]) for form in ("mask", "box")] == [2, 0]
    assert all(0 < score < 1 for form in scores.present.values() for score in form)


def test_calibration_replaces_only_what_the_rows_say_enough_about(model, processor, monkeypatch):
    scores = PresenceScores({"mask": [0.9] * 5, "box": [0.9]}, {"mask": [0.3] * 5, "box": [0.1]})
    monkeypatch.setattr("vividmed.training.presence.score_presence", lambda *_, **__: scores)
    model.config.presence_thresholds = {"mask": 0.1, "box": 0.2}
    assert calibrate_presence(model, processor, rows(1)) == {"mask": pytest.approx(0.6)}
    assert model.config.presence_thresholds == {"mask": pytest.approx(0.6), "box": 0.2}


def test_the_record_of_an_adapter_reaches_its_base_model(tmp_path):
    config = VividMedConfig.tiny(target_forms={"liver": "mask"}, presence_thresholds={"mask": 0.7})
    write_record(config, tmp_path)
    base = VividMedConfig.tiny()
    read_record(base, tmp_path)
    assert (base.target_forms, base.presence_thresholds) == ({"liver": "mask"}, {"mask": 0.7})
    (tmp_path / "grounding.json").write_text(json.dumps({"target_forms": {"liver": "circle"}}))
    with pytest.raises(VividMedError, match=r"grounding.json: is damaged"):
        read_record(base, tmp_path)
