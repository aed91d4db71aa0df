"""Grounding of given texts, and masks at full resolution."""

import numpy as np
import pytest
import torch

from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM, VividMedProcessor
from vividmed.inference.grounding import ground_phrase, ground_report, ground_reports
from vividmed.processing.medical_image import MedicalImage


@pytest.fixture(scope="module")
def processor() -> VividMedProcessor:
    return VividMedProcessor.tiny()


@pytest.fixture(scope="module")
def model(processor) -> VividMedForCausalLM:
    torch.manual_seed(0)
    return VividMedForCausalLM(VividMedConfig.tiny(len(processor.tokenizer), grounding=True)).eval()


def scan(size: tuple[int, int, int]) -> MedicalImage:
    values = np.random.default_rng(0).normal(0, 100, (1, *size)).astype(np.float32)
    return MedicalImage(values, np.diag([-0.8, -0.8, 3.0, 1.0]), modality="CT", oriented=True)


def test_the_phrases_of_a_report_are_found_on_its_image(model, processor):
    image = scan((10, 60, 90))
    report = "A large<p> mass</p> in the liver. The<p> left kidney</p> is normal."
    text = ground_report(model, processor, image, report, score_threshold=0.0, mask_threshold=0.0)
    assert text.text == "A large mass in the liver. The left kidney is normal."
    assert [phrase.text for phrase in text.phrases] == ["mass", "left kidney"]
    for phrase in text.phrases:
        assert text.text[phrase.start : phrase.end] == phrase.text
        assert phrase.mask.shape == image.size
        assert len(phrase.boxes) > 0


def test_reports_are_grounded_together_as_one_by_one(model, processor):
    images, options = [scan((6, 60, 60)), scan((1, 50, 70))], {"score_threshold": 0.0, "mask_threshold": 0.0}
    reports, spans = ["The liver is large.", "A mass and the aorta."], [[(4, 9)], [(2, 6), (15, 20)]]
    together = ground_reports(model, processor, images, reports, spans, **options)
    for text, image, report, places in zip(together, images, reports, spans, strict=True):
        single = ground_report(model, processor, image, report, places, **options)
        assert text.text == single.text
        for phrase, other in zip(text.phrases, single.phrases, strict=True):
            np.testing.assert_allclose(phrase.boxes, other.boxes, atol=1e-2)
            assert phrase.mask.shape == image.size


@pytest.mark.parametrize("report", ["The<p> liver</p> is large.", "The <p>liver</p> is large."])
def test_spans_and_markers_say_the_same(model, processor, report):
    image, options = scan((6, 60, 60)), {"score_threshold": 0.0}
    marked = ground_report(model, processor, image, report, **options)
    spans = ground_report(model, processor, image, "The liver is large.", [(4, 9)], **options)
    np.testing.assert_array_equal(marked.phrases[0].boxes, spans.phrases[0].boxes)
    assert marked.text == spans.text


def test_another_phrase_is_sought_elsewhere(model, processor):
    image, options = scan((6, 60, 60)), {"score_threshold": 0.0}
    boxes = [ground_phrase(model, processor, image, name, **options).boxes for name in ("liver", "aorta")]
    assert not np.allclose(boxes[0][:1], boxes[1][:1])


@pytest.mark.parametrize(
    ("phrase", "message"), [(" ", "the phrase is empty"), ("a</p>b", "text contains the marker </p>")]
)
def test_a_phrase_that_is_none_is_refused(model, processor, phrase, message):
    with pytest.raises(VividMedError, match=message):
        ground_phrase(model, processor, scan((4, 32, 32)), phrase)


def test_a_report_without_phrases_is_refused(model, processor):
    with pytest.raises(VividMedError, match="marks no phrase"):
        ground_report(model, processor, scan((4, 32, 32)), "Nothing to see.")


def logits_of_both(model, processor, image, threshold):
    phrase = {
        full: ground_phrase(model, processor, image, "liver", mask_threshold=threshold, full_resolution=full)
        for full in (False, True)
    }
    return phrase[False].mask, phrase[True].mask


def test_an_image_that_the_model_saw_at_full_resolution_keeps_its_mask(model, processor):
    # 4 slices are never resized, and 192 x 192 pixels fill the budget of the tiny model exactly.
    image = scan((4, 96, 96))
    plan = processor.image_processor.plan(image.size, image.affine)
    assert plan.resized_size == plan.oriented_size
    coarse, fine = logits_of_both(model, processor, image, 0.0)
    np.testing.assert_array_equal(coarse, fine)


def test_a_large_volume_is_drawn_in_windows_on_its_own_voxels(model, processor, monkeypatch):
    image = scan((60, 200, 220))
    sizes = []
    forward = type(model.segmenter).forward

    def spy(self, images, *args):
        sizes.extend(tuple(window.shape) for window in images)
        return forward(self, images, *args)

    monkeypatch.setattr(type(model.segmenter), "forward", spy)
    _, fine = logits_of_both(model, processor, image, 0.0)
    plan = processor.image_processor.plan(image.size, image.affine)
    assert fine.shape == image.size
    assert len(sizes) > 10
    assert set(sizes) == {(3, *plan.model_size)}


def test_what_was_not_found_is_not_looked_for_again(model, processor):
    coarse, fine = logits_of_both(model, processor, scan((24, 150, 170)), 1.0)
    assert coarse is None
    assert fine is None
