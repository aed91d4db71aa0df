"""The form of a phrase follows the training of its target, and absent phrases draw nothing."""

import numpy as np
import pytest
import torch

from tests.fixtures.phrases import PhraseEveryFourTokens
from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM, VividMedProcessor
from vividmed.models.phrases.forms import find_form
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter


@pytest.fixture(scope="module")
def processor() -> VividMedProcessor:
    return VividMedProcessor.tiny()


@pytest.fixture
def model(processor) -> VividMedForCausalLM:
    torch.manual_seed(1)
    return VividMedForCausalLM(VividMedConfig.tiny(len(processor.tokenizer), grounding=True)).eval()


FORMS = {"liver": "mask", "liver tumor": "both", "pleural effusion": "box"}


@pytest.mark.parametrize(
    ("phrase", "form"),
    [
        ("Liver", "mask"),
        ("a large liver tumor", "both"),
        ("tumor of the liver", "mask"),
        ("small pleural  effusion", "box"),
        ("delivery", None),
        ("", None),
    ],
)
def test_the_longest_recorded_name_in_a_phrase_decides(phrase, form):
    assert find_form(FORMS, phrase) == form


@pytest.mark.parametrize("size", [(9, 60, 50), (40, 60)], ids=["volume", "2D image"])
@pytest.mark.parametrize("form", ["mask", "box", "both", None])
def test_a_phrase_is_shown_as_its_target_was_trained(model, processor, monkeypatch, size, form):
    asked = []
    for segmenter in (Segmenter, InstanceSegmenter):
        forward = segmenter.forward
        monkeypatch.setattr(
            segmenter,
            "forward",
            lambda self, *args, _forward=forward, **kwargs: (
                asked.append(type(self)) or _forward(self, *args, **kwargs)
            ),
        )
    image = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    batch = processor(images=image, text="Report?", grounding=True)
    (text,) = model.generate_grounded(
        **batch,
        processor=processor,
        find_form=lambda phrase: form,
        max_new_tokens=8,
        logits_processor=[PhraseEveryFourTokens(model.config)],
        mask_threshold=0.0,
        score_threshold=0.0,
    )
    shown = {(phrase.mask is not None, len(phrase.boxes) > 0) for phrase in text.phrases}
    by_size = {"mask" if len(size) == 3 else "box"}
    expected = {"both": by_size, None: by_size}.get(form, {form})
    assert shown == {("mask" in expected, "box" in expected)}
    # A segmenter whose drawing would not be shown is not run.
    assert len(asked) == len(expected)
    assert all(0 < phrase.presence < 1 for phrase in text.phrases)


@pytest.mark.parametrize("form", ["mask", "box"])
@pytest.mark.parametrize("absent", [True, False])
def test_a_phrase_below_the_calibrated_threshold_draws_nothing(model, processor, form, absent):
    image = np.random.default_rng(0).integers(0, 255, (9, 60, 50), dtype=np.uint8)
    batch = processor(images=image, text="Report?", grounding=True)
    model.config.presence_thresholds = {form: 1.0 if absent else 0.0}
    (text,) = model.generate_grounded(
        **batch,
        processor=processor,
        find_form=lambda phrase: form,
        max_new_tokens=8,
        logits_processor=[PhraseEveryFourTokens(model.config)],
        mask_threshold=0.0,
        score_threshold=0.0,
    )
    assert text.phrases
    for phrase in text.phrases:
        assert (phrase.mask is None and not len(phrase.boxes)) == absent
        assert 0 < phrase.presence < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_forms": {"liver": "circle"}}, "target_forms must map"),
        ({"target_forms": {"liver": "mask first"}}, "target_forms must map"),
        ({"presence_thresholds": {"mask": 2}}, "presence_thresholds must map"),
        ({"presence_thresholds": {"circle": 0.5}}, "presence_thresholds must map"),
    ],
)
def test_damaged_records_are_one_clear_error(tmp_path, fields, message):
    import json

    VividMedConfig.tiny().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(VividMedError, match=message):
        VividMedConfig.from_pretrained(tmp_path)


def test_records_are_saved_with_the_model(tmp_path):
    VividMedConfig.tiny(target_forms=FORMS, presence_thresholds={"mask": 0.7}).save_pretrained(tmp_path)
    config = VividMedConfig.from_pretrained(tmp_path)
    assert config.target_forms == FORMS
    assert config.presence_thresholds == {"mask": 0.7}
